"""Which changes of elements are safe one by one, and in which order."""

from enforcer.rules.effects import Role, effect, in_place, roles
from enforcer.rules.ruleset import Count, Element, InSet, Nflog, Return, Rule
from enforcer.rules.steps import ChangeSet
from policy.cidr import parse_cidr

A, B = (Element(parse_cidr(f"10.0.0.{host}/32")) for host in (1, 2))
FAR: dict[str, Role] = {"s": "far end", "t": "far end", "known": "allows", "pods": "denies", "n": "neither"}


def add(name: str, *elements: Element) -> ChangeSet:
    return ChangeSet(name, elements, ())


def remove(name: str, *elements: Element) -> ChangeSet:
    return ChangeSet(name, (), elements)


def test_what_a_step_does_is_not_whether_it_adds() -> None:
    nomatch = Element(A.prefix, nomatch=True)
    assert effect("far end", A, added=True) == "widens" and effect("far end", A, added=False) == "narrows"
    assert effect("denies", A, added=True) == "narrows" and effect("denies", A, added=False) == "widens"
    assert effect("far end", nomatch, added=True) == "narrows" and effect("denies", nomatch, added=True) == "widens"
    assert effect("neither", A, added=True) == "nothing"


def test_one_way_is_safe_for_any_number() -> None:
    assert in_place([add("s", A, B), add("t", B), add("known", A)], FAR) is not None
    assert in_place([remove("s", A, B), add("pods", B)], FAR) is not None


def test_one_address_that_moves_is_added_first() -> None:
    steps = in_place([ChangeSet("s", (), (A,)), ChangeSet("t", (A,), ()), ChangeSet("n", (B,), (A,))], FAR)
    assert steps == (add("t", A), remove("s", A), ChangeSet("n", (B,), (A,)))


def test_two_addresses_that_move_are_not_safe() -> None:
    """One leaves the set by which its egress passed, the other enters the one that admits it."""
    assert in_place([remove("s", A), add("t", B)], FAR) is None


def test_one_address_is_not_safe_where_a_set_is_about_the_near_end() -> None:
    assert in_place([add("known", A), remove("s", A)], FAR) is None
    assert in_place([add("pods", A), add("s", A)], FAR) is None


def test_a_nomatch_is_not_an_address_that_moves() -> None:
    assert in_place([ChangeSet("s", (A, Element(A.prefix, nomatch=True)), ())], FAR) is None


def test_a_rule_that_counts_or_tells_says_nothing_of_what_another_decides() -> None:
    asked = InSet("audited", ("dst",))
    rules = [Rule((asked,), Return()), Rule((asked,), Nflog(1, "x")), Rule((asked,), Count())]
    for order in (rules, rules[::-1]):
        assert roles({"PODFENCE-DENY-IN": order}) == {"audited": "allows"}
