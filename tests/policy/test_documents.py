"""Files of YAML and JSON: lists taken apart, places of objects and fields, and files that are neither."""

from __future__ import annotations

import json

import pytest

from policy.decode import decode_objects, read_documents
from policy.errors import UnreadableInput
from policy.model import NetworkPolicy, Pod
from tests.policy.given import read

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}


def pods(data: str | bytes, file: str = "f") -> list[tuple[str, int]]:
    """Name and line of each pod in `data`, which must be right."""
    decoded = read_documents(data if isinstance(data, bytes) else data.encode(), file)
    assert decoded.problems == ()
    return [(pod.name, pod.source.line) for pod in decoded.cluster.pods if pod.source]


def pod(name: str) -> str:
    return json.dumps({**POD, "metadata": {"name": name}}, sort_keys=True)


def test_yaml_documents() -> None:
    text = "# first\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n---\n\n" + pod("b")
    assert pods(text) == [("a", 2), ("b", 8)]


YAML_LIST = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: a}

- {apiVersion: v1, kind: Pod, metadata: {name: b}}
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (YAML_LIST, [("a", 4), ("b", 8)]),
        ("apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n", [("a", 4)]),
        (f"- {pod('a')}\n- kind: List\n  items:\n  - {pod('b')}\n", [("a", 1), ("b", 4)]),
        (f'{{"kind": "List", "items": [\n{pod("a")},\n\n  {pod("b")}]}}', [("a", 2), ("b", 4)]),
        ('{"kind": "PodList", "apiVersion": "v1", "items": [{"metadata":\n{"name": "a"}}]}', [("a", 1)]),
        (f'{{"kind": "List", "metadata": {pod("a")},\n"items": [{pod("a")}]}}', [("a", 2)]),
        (f"\n [{pod('a')},\n{pod('b')}]", [("a", 2), ("b", 3)]),
        (f'[{{"kind": "List", "items": [\n{pod("a")}]}}]', [("a", 2)]),
        (f"\n\n{pod('a')}\n", [("a", 3)]),
        (f"{pod('a')}\n---\n{pod('b')}\n", [("a", 1), ("b", 3)]),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a}}", [("a", 1)]),
        ("\ufeff" + pod("a"), [("a", 1)]),
        ("\ufeffapiVersion: v1\nkind: Pod\nmetadata: {name: a}", [("a", 1)]),
        ('{"kind": "PodList", "apiVersion": "v1", "items": null}', []),
    ],
)
def test_lists_and_lines(text: str, expected: list[tuple[str, int]]) -> None:
    assert pods(text) == expected


def test_an_object_anchored_inside_another_has_the_line_of_its_document() -> None:
    text = f"kind: X\n---\nkind: List\nx: {{y: [{{z: [&p {pod('a')}]}}]}}\nitems: [*p]\n"
    assert pods(text) == [("a", 2)]


@pytest.mark.parametrize(
    ("data", "line", "reason"),
    [
        (b"\xff", 1, "not UTF-8: byte 0xff"),
        (b"a: 1\nb: '\xc3\x28'\n", 2, "not UTF-8: byte 0xc3"),
        (b'{"a":\n[1, 2', 2, "not JSON: it ends in the middle of a value"),
        (b'{"a":\n[1, }', 2, "not JSON: invalid character"),
        (b'{"kind": "NetworkPolicy",\n"a": 1,\n"a": 2}', 3, "the key 'a' stands twice in one object"),
        (b"\n---\nhello\n", 2, "the text 'hello', expected an API object"),
        (b"[1]", 1, "[0]: the number 1, expected an API object"),
        (b"- []", 1, "[0]: a list, expected an API object"),
        (b"\nkind: List\nitems: [{}, null]\n", 2, "items[1]: null, expected an API object"),
        (b"kind: List\nitems: {}\n", 1, "items: a mapping, expected API objects"),
        (b"kind: List\nitems:\n- kind: List\n  items: []\n", 3, "items[0]: a list in a list, expected API objects"),
        (
            b'{"kind": "List", "items": [\n{"kind": "List", "items": []}]}',
            2,
            "items[0]: a list in a list, expected API objects",
        ),
    ],
)
def test_unreadable(data: bytes, line: int, reason: str) -> None:
    with pytest.raises(UnreadableInput) as caught:
        read_documents(data, "dir/f.yaml")
    assert str(caught.value) == f"dir/f.yaml:{line}: {reason}"


@pytest.mark.parametrize("opened", [b"[", b'{"a":', b'{"kind": "NetworkPolicy", "spec":' + b"[" * 900 + b"{"])
def test_json_that_is_nested_too_deeply_is_refused(opened: bytes) -> None:
    data = opened * 5000
    with pytest.raises(UnreadableInput, match=r"^f:\d+: "):
        read_documents(data, "f")


def test_deep_json_that_is_complete_is_refused_too() -> None:
    deep = b'{"kind": "NetworkPolicy", "spec": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(UnreadableInput, match="nested too deeply"):
        read_documents(deep, "f")


def test_what_is_called_json_is_not_read_as_yaml() -> None:
    data = b'{"a":\n[1 2]}'
    assert read_documents(data, "f.yaml").problems
    with pytest.raises(UnreadableInput, match=r"^f.json:2: not JSON: "):
        read_documents(data, "f.json")


def test_an_object_without_a_kind_is_a_problem() -> None:
    decoded = read("a: 1\n---\nkind: 5\n", "f.yaml")
    assert [str(problem) for problem in decoded.problems] == [
        "f.yaml:1: object of no kind: kind: missing, expected one such as NetworkPolicy",
        "f.yaml:3: object of no kind: kind: missing, expected one such as NetworkPolicy",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
        "apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {selector: all()}\n",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {template: {}}\n",
    ],
)
def test_kinds_and_groups_of_others_are_ignored(text: str) -> None:
    decoded = read(text)
    assert decoded.problems == ()
    assert not any((decoded.cluster.policies, decoded.cluster.pods, decoded.cluster.services))


FIELDS = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: api
spec:
  podSelector: {}
  ingress:
  - from:
    - ipBlock:
        cidr: 10.0.0.0/8
    # the second
    - podSelector:
        matchLabels:
          app: web
    ports: [{port: 80},
            {port: 81}]
"""
LINES = [
    ((), 1),
    (("spec",), 5),
    (("spec", "podSelector"), 6),
    (("spec", "podSelector", "matchLabels"), 6),
    (("spec", "policyTypes"), 5),
    (("spec", "ingress", 0), 8),
    (("spec", "ingress", 0, "from"), 8),
    (("spec", "ingress", 0, "from", 0), 9),
    (("spec", "ingress", 0, "from", 0, "ipBlock", "cidr"), 10),
    (("spec", "ingress", 0, "from", 1), 12),
    (("spec", "ingress", 0, "from", 1, "podSelector", "matchLabels", "app"), 14),
    (("spec", "ingress", 0, "ports", 1, "port"), 16),
    (("spec", "ingress", 0, "ports", 7), 15),
    (("spec", "ingress", 5), 7),
]


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("in_list", [False, True])
def test_every_field_of_a_yaml_object_knows_its_line(before: int, in_list: bool) -> None:
    text = "---\n" * before + FIELDS
    if in_list:
        before += 2
        text = "kind: List\nitems:\n- " + FIELDS.replace("\n", "\n  ") + "\n- kind: Other\n"
        text = "---\n" * (before - 2) + text
    (policy,) = read(text).cluster.policies
    assert [(path, line_of(policy, path) - before) for path, _ in LINES] == LINES


def line_of(found: NetworkPolicy | Pod, path: tuple[str | int, ...]) -> int:
    assert found.source
    return found.source.line_of(path)


JSON_FIELDS = """\
{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
 "metadata": {"name": "a\\"}pi", "labels": {"b": "{[,:\\\\"}},
 "spec": {
  "podSelector": {},
  "ingress": [
   {}, {"from": [],
    "ports": [
     {"port": 80}, {"port": 81},
     {"port": 82,
      "endPort": 83}
]}]}}
"""
JSON_LINES = [
    ((), 1),
    (("metadata", "labels", "b"), 2),
    (("spec",), 3),
    (("spec", "policyTypes"), 3),
    (("spec", "podSelector", "matchLabels"), 4),
    (("spec", "ingress"), 5),
    (("spec", "ingress", 1), 6),
    (("spec", "ingress", 1, "ports"), 7),
    (("spec", "ingress", 1, "ports", 1, "port"), 8),
    (("spec", "ingress", 1, "ports", 2, "endPort"), 10),
    (("spec", "ingress", 1, "ports", 3), 7),
]


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("", ""),
        ("\n\n", ""),
        ('{"kind": "List", "items": [\n\n', "]}"),
        ('{"kind": "List", "items": [{"kind": "A"},\n', "]}"),
        ("[\n", "]"),
    ],
)
def test_every_field_of_a_json_object_knows_its_line(opening: str, closing: str) -> None:
    (policy,) = read_documents((opening + JSON_FIELDS + closing).encode(), "f.json").cluster.policies
    before = opening.count("\n")
    assert [(path, line_of(policy, path) - before) for path, _ in JSON_LINES] == JSON_LINES


def test_lines_of_fields_that_come_from_an_anchor() -> None:
    text = "apiVersion: v1\nkind: Pod\nx:\n  y: &m\n    labels: {}\n    name: a\nmetadata:\n  <<: *m\n  uid: u\n"
    (pod,) = read(text).cluster.pods
    assert line_of(pod, ("metadata", "uid")) == 9
    assert line_of(pod, ("metadata", "labels")) == 5


def test_lines_of_merged_fields_are_those_of_the_mapping_that_wins() -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata:\n  <<:\n  - {name: a}\n  - name: b\n    uid: u\n"
    (pod,) = read(text).cluster.pods
    assert (pod.name, line_of(pod, ("metadata", "name"))) == ("a", 5)
    assert (pod.uid, line_of(pod, ("metadata", "uid"))) == ("u", 7)


def test_an_object_that_uses_an_anchor_of_its_list_has_its_own_line_at_least() -> None:
    text = f"kind: List\nx: &m {{name: a}}\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: *m\n- {pod('b')}\n"
    found = read(text).cluster.pods
    assert [line_of(pod, ("metadata", "name")) for pod in found] == [4, 7]


def test_trees_have_the_sources_that_the_caller_gives() -> None:
    decoded = decode_objects([POD, {"kind": "List", "items": [{**POD, "metadata": {"name": "b"}}]}])
    assert [(pod.name, pod.source) for pod in decoded.cluster.pods] == [("web", None), ("b", None)]
    (source,) = [pod.source for pod in read("apiVersion: v1\nkind: Pod\nmetadata: {name: a}").cluster.pods]
    assert [pod.source for pod in decode_objects([POD], lambda _: source).cluster.pods] == [source]
