"""The syntax of names and labels at its borders."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from policy.labels import (
    bare,
    dns_1035_label_problem,
    dns_label_problem,
    dns_subdomain_problem,
    label_key_problem,
    label_value_problem,
    port_name_problem,
    quoted,
)

RIGHT: list[tuple[Callable[[str], str], list[str]]] = [
    (label_key_problem, ["a", "A_b.c-9", "a" * 63, "example.com/a", f"{'a' * 253}/b", "9/9"]),
    (label_value_problem, ["", "a", "A_b.c-9", "a" * 63]),
    (dns_label_problem, ["a", "9", "a-b", "a" * 63]),
    (dns_1035_label_problem, ["a", "a9", "a-b", "a" * 63]),
    (dns_subdomain_problem, ["a", "9.a-b", "a" * 253]),
    (port_name_problem, ["a", "a9", "9a", "a-b-c", "a" * 15]),
]
WRONG: list[tuple[Callable[[str], str], list[str]]] = [
    (label_key_problem, ["", "-a", "a-", "a b", "a" * 64, "/a", "a/", "A/a", "a/b/c", f"{'a' * 254}/b", "é", "a\n"]),
    (label_value_problem, ["-", "a-", "a b", "a/b", "a" * 64, "é", "a\n"]),
    (dns_label_problem, ["", "A", "a.b", "-a", "a-", "a_b", "a" * 64, "a\n"]),
    (dns_1035_label_problem, ["", "A", "9a", "a.b", "a-", "a" * 64]),
    (dns_subdomain_problem, ["", "A", "a..b", ".a", "a.", "a-.b", "a" * 254, "a\n"]),
    (port_name_problem, ["", "80", "A", "a--b", "-a", "a-", "a_b", "a" * 16, "1-2", "a\n"]),
]


@pytest.mark.parametrize(("problem", "text"), [(problem, text) for problem, texts in RIGHT for text in texts])
def test_right(problem: Callable[[str], str], text: str) -> None:
    assert problem(text) == ""


@pytest.mark.parametrize(("problem", "text"), [(problem, text) for problem, texts in WRONG for text in texts])
def test_wrong(problem: Callable[[str], str], text: str) -> None:
    assert quoted(text) in problem(text)
    assert "expected" in problem(text)


def test_what_is_shown_is_cut_and_harmless() -> None:
    assert quoted("a" * 1000) == repr("a" * 100 + "…")
    assert quoted("\x1b[0m") == r"'\x1b[0m'"
    assert bare("web-1") == "web-1"
    assert bare("a\nb\u202e") == r"a\nb\u202e"
