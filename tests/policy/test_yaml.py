"""YAML as Kubernetes reads it, and what is refused rather than guessed."""

from __future__ import annotations

import pytest

from policy.errors import UnreadableInput
from policy.read_yaml import MAX_ALIASED, MAX_DEPTH, parse_yaml
from policy.yaml_scalars import resolve


def values(text: str) -> list[object]:
    return [value for _, value in parse_yaml(text, "f.yaml").documents]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, True) for word in ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")),
        *((word, False) for word in ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")),
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        *((word, word) for word in ("yEs", "nULL", "tRUE", "none", "-", "+", ".", "..", "1.2.3", "1e", "0x", "0b2")),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("1_000", 1000),
        ("0x1F", 31),
        ("-0x1f", -31),
        ("017", 15),
        ("0o17", 15),
        ("0b101", 5),
        ("08", 8),
        ("80.0", 80),
        ("8e1", 80),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-1.5e-1", -0.15),
        ("1e999", "1e999"),
        ("9" * 5000, "9" * 5000),
        ("12:30", "12:30"),
        ("2024-01-02", "2024-01-02"),
        ("１２", "１２"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 'yes'\nb: \"1\"\nc: |\n  2\n", {"a": "yes", "b": "1", "c": "2\n"}),
        ("1: a\ntrue: b\n1.5: c\n", {"1": "a", "true": "b", "1.5": "c"}),
        ("a: !!str 5\nb: !!int '5'\nc: !!null ''\nd: !mine x\n", {"a": "5", "b": 5, "c": None, "d": "x"}),
        ("a: &x [1, 2]\nb: *x\n", {"a": [1, 2], "b": [1, 2]}),
        ("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3\n", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("b:\n  <<: [{p: 1}, {p: 2, q: 2}]\n", {"b": {"p": 1, "q": 2}}),
        ("b:\n  q: 3\n  <<: {q: 3, p: 1}\n", {"b": {"p": 1, "q": 3}}),
        ("'<<': 1\n", {"<<": 1}),
        ("\ufeffa: 1\n", {"a": 1}),
    ],
)
def test_values(text: str, value: object) -> None:
    assert values(text) == [value]


def test_documents_and_their_lines_without_the_empty_ones() -> None:
    text = "# nothing\n---\n---\na: 1\n---\n~\n...\n---\n- b\n"
    assert parse_yaml(text, "f.yaml").documents == [(3, {"a": 1}), (8, ["b"])]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb:\n  c: 2\n  d: 3\n  c: 4\n", 5, "the key 'c' stands twice in one mapping, first on line 3"),
        ("{a: 1, 'a': 1}", 1, "the key 'a' stands twice in one mapping, first on line 1"),
        ("1: x\n'1': x\n", 2, "the key '1' stands twice in one mapping, first on line 1"),
        ("yes: x\ntrue: x\n", 2, "the key 'true' stands twice in one mapping, first on line 1"),
        ("a: &x {p: 1}\n<<: *x\n<<: *x\n", 3, "the key '<<' stands twice in one mapping, first on line 2"),
        ("p: 1\n<<: {p: 2}\n", 2, "<< must stand before the key 'p', which overrides it"),
        ("<<: 1\n", 1, "<< must name a mapping, or a list of mappings"),
        ("? {a: 1}\n: b\n", 1, "a mapping's key must be text"),
        ("~: b\n", 1, "a mapping's key must be text"),
        ("a: !!int five\n", 1, "not a !!int: 'five'"),
        ("a: !!int yes\n", 1, "not a !!int: 'yes'"),
        ("a:\n- *x\n", 2, "the alias *x has no anchor before it"),
        ("a: &x\n- *x\n", 2, "the alias *x stands inside itself"),
        ("a: &x 1\n---\nb: *x\n", 3, "the alias *x has no anchor before it"),
        ("a:\n\t- b\n", 2, "not YAML: while scanning for the next token, found character that cannot start any token"),
        ("a: [1, 2\n", 2, "not YAML: while parsing a flow sequence, did not find expected ',' or ']'"),
        ("a: 'b\n", 2, "not YAML: while scanning a quoted scalar, found unexpected end of stream"),
        ("a: b: c\n", 1, "not YAML: mapping values are not allowed in this context"),
        ("é: 1\na: \x00b\n", 2, "not YAML: control characters are not allowed"),
    ],
)
def test_refused(text: str, line: int, reason: str) -> None:
    with pytest.raises(UnreadableInput) as caught:
        values(text)
    assert (caught.value.line, caught.value.reason) == (line, reason)
    assert str(caught.value) == f"f.yaml:{line}: {reason}"


@pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "? "])
def test_depth_is_bounded(opened: str) -> None:
    with pytest.raises(UnreadableInput, match=f"f.yaml:1: nested deeper than {MAX_DEPTH} levels"):
        values(opened * 1_000_000)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 999, 1001, 20_000])
def test_too_deep_on_a_later_line(levels: int) -> None:
    """libyaml may notice first: the error is the same."""
    with pytest.raises(UnreadableInput) as caught:
        values("a:\n  " + "[" * levels + "]" * levels)
    assert str(caught.value) == f"f.yaml:2: nested deeper than {MAX_DEPTH} levels"


def test_what_aliases_stand_for_is_bounded() -> None:
    doubling = "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    with pytest.raises(UnreadableInput, match=f"aliases stand for more than {MAX_ALIASED} values"):
        values(f"a0: &a0 [1, 2]\n{doubling}")


def test_merges_are_bounded_like_aliases() -> None:
    wide = ", ".join(f"k{n}: 1" for n in range(1000))
    merges = "".join(f"b{n}: {{<<: *x}}\n" for n in range(200))
    with pytest.raises(UnreadableInput, match=f"aliases stand for more than {MAX_ALIASED} values"):
        values(f"a: &x {{{wide}}}\n{merges}")
