"""What may be passed over in a long list: never an object of a namespace that matters, however it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.documents import documents
from policy.errors import UnreadableInput
from policy.json_unique import SMALL

FILLER = "x" * 1000


def item(kind: str, name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def names(text: str, about: tuple[str, ...] = ("shop",)) -> list[tuple[str, int]]:
    found = documents(text.encode(), "a.json", about)
    return [(json.loads(bytes(each.body))["metadata"]["name"], each.source.line) for each in found if each.source]


def long_list(*items: Any, kind: str = "List") -> str:
    filler = [item("Pod", f"other-{number}", "bank", spec={"filler": FILLER}) for number in range(SMALL // 1000 + 1)]
    half = len(filler) // 2
    tree = {"apiVersion": "v1", "kind": kind, "items": [*filler[:half], *items, *filler[half:]]}
    return json.dumps(tree, indent=1)


def test_others_are_passed_over_and_lines_are_right() -> None:
    text = long_list(item("Pod", "web", "shop"), item("Namespace", "shop"), item("Node", "n1"))
    lines = {name: text.count("\n", 0, text.index(f'"name": "{name}"')) - 4 + 1 for name in ("web", "n1")}
    found = names(text)
    assert [name for name, _ in found] == ["web", "shop", "n1"]
    assert dict(found)["web"] == lines["web"] and dict(found)["n1"] == lines["n1"]


@pytest.mark.parametrize("written", ["shop", "\\u0073hop", "sh\\u006fp"])
def test_an_escape_hides_nothing(written: str) -> None:
    text = long_list(item("Pod", "web", "SHOP")).replace("SHOP", written)
    assert [name for name, _ in names(text)] == ["web"]


def test_a_list_in_the_list_is_read_whole() -> None:
    inner = {"apiVersion": "v1", "kind": "PodList", "items": [item("Pod", "web", "shop")]}
    with pytest.raises(UnreadableInput, match="a list in a list"):
        names(long_list(inner))


@pytest.mark.parametrize("kind", ["PodList", "List"])
def test_nothing_is_passed_over_where_all_matter(kind: str) -> None:
    text = long_list(item("Pod", "web", "shop"), kind=kind)
    assert len(names(text, ())) == SMALL // 1000 + 2


def test_a_key_that_stands_twice_outside_of_items_is_an_error() -> None:
    text = long_list(item("Pod", "web", "shop"))
    with pytest.raises(UnreadableInput, match="twice"):
        names(text[:-2] + ',"items": []}')


def test_broken_json_is_an_error_wherever_it_is() -> None:
    with pytest.raises(UnreadableInput, match="not JSON"):
        names(long_list(item("Pod", "web", "shop")).replace('"name": "other-9"', '"name" "other-9"'))
