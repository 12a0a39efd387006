"""Canonical selectors against a matcher that knows nothing of canonical forms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import policy.selector
from policy.selector import (
    EVERYTHING,
    NOTHING,
    KeyTest,
    does_not_exist,
    exists,
    in_,
    namespace_named,
    not_in,
    selector,
)

KEYS, VALUES = ["a", "b", "c/d"], ["", "x", "y", "z"]
Expression = tuple[str, str, list[str]]
Labels = dict[str, str]

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
expressions = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=3),
    ),
    max_size=5,
)
EVERY_LABELS: list[Labels] = [
    {key: value for key, value in (("a", one), ("b", two), ("c/d", three)) if value is not None}
    for one in (None, *VALUES)
    for two in (None, *VALUES)
    for three in (None, *VALUES)
]


def slow(expression: Expression, found: Labels) -> bool:
    """The API text of LabelSelectorRequirement."""
    key, operator, values = expression
    if operator == "In":
        return key in found and found[key] in values
    if operator == "NotIn":
        return not (key in found and found[key] in values)
    return (key in found) == (operator == "Exists")


def as_test(expression: Expression) -> KeyTest:
    key, operator, values = expression
    if operator in ("In", "NotIn"):
        return (in_ if operator == "In" else not_in)(key, *values)
    return exists(key) if operator == "Exists" else does_not_exist(key)


@given(expressions, labels)
def test_a_selector_matches_where_each_of_its_expressions_does(wanted: list[Expression], found: Labels) -> None:
    assert selector(map(as_test, wanted)).matches(found) is all(slow(expression, found) for expression in wanted)


@given(expressions, expressions)
def test_selectors_are_one_object_exactly_where_they_select_the_same(
    one: list[Expression], two: list[Expression]
) -> None:
    same = all(
        all(slow(expression, found) for expression in one) == all(slow(expression, found) for expression in two)
        for found in EVERY_LABELS_AND_MORE
    )
    assert (selector(map(as_test, one)) is selector(map(as_test, two))) is same


# With a value that no expression names, since co-finite sets differ only there.
EVERY_LABELS_AND_MORE = EVERY_LABELS + [{**found, key: "other"} for found in EVERY_LABELS for key in KEYS]


def test_everything_and_nothing() -> None:
    assert EVERYTHING.is_everything
    assert NOTHING.is_nothing
    assert selector([in_("a", "x"), in_("a", "y")]) is NOTHING
    assert selector([exists("a"), does_not_exist("a"), in_("b", "x")]) is NOTHING
    assert namespace_named("shop").matches({"kubernetes.io/metadata.name": "shop"})


def test_selectors_that_nobody_holds_are_forgotten() -> None:
    """An agent meets new ones for as long as it runs."""
    held = selector([in_("kept", "x")])
    before = len(policy.selector._interned)
    for number in range(1000):
        selector([in_("app", f"gone-{number}")])
    assert len(policy.selector._interned) <= before + 1
    assert selector([in_("kept", "x")]) is held
