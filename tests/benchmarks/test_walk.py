"""The rules and lookups that are counted are those that a packet meets."""

from __future__ import annotations

from benchmarks.walk import Met, met
from enforcer.readback.simulate import Packet
from enforcer.rules.ruleset import Count, DstPorts, Element, Goto, InSet, IpSet, Jump, Proto, Return, Rule, RuleSet
from policy.cidr import parse_address, parse_cidr

SRC, DST = parse_address("10.0.0.1"), parse_address("10.0.0.2")
LOOKUP = InSet("s", ("src",))
TCP_80 = (Proto("tcp"), DstPorts(((80, 80),)))


def walked(chains: dict[str, tuple[Rule, ...]], port: int = 80) -> Met:
    ipset = IpSet("s", "hash:ip", frozenset([Element(parse_cidr("10.0.0.1/32"))]))
    return met(RuleSet(4, {"FORWARD": "top"}, chains, {"s": ipset}), Packet(SRC, DST, "tcp", port))


def test_a_chain_without_rules_costs_nothing() -> None:
    assert walked({"top": ()}) == Met(0, 0)


def test_what_does_not_match_is_compared_too() -> None:
    chains = {"top": (Rule((Proto("udp"),), Return()), Rule((), Return()), Rule((), Return()))}
    assert walked(chains) == Met(2, 0)


def test_a_lookup_is_made_only_where_the_matches_before_it_match() -> None:
    chains = {"top": (Rule((*TCP_80, LOOKUP), Return()),)}
    assert walked(chains, 80) == Met(1, 1)
    assert walked(chains, 81) == Met(1, 0)


def test_jumps_come_back_and_gotos_do_not() -> None:
    jump = {"top": (Rule((), Jump("a")), Rule((), Return())), "a": (Rule((Proto("udp"),), Return()),)}
    assert walked(jump) == Met(3, 0)
    goto = {**jump, "top": (Rule((), Goto("a")), Rule((), Return()))}
    assert walked(goto) == Met(2, 0)


def test_a_goto_below_a_jump_returns_to_the_chain_that_jumped() -> None:
    chains = {
        "top": (Rule((), Jump("a")), Rule((LOOKUP,), Return())),
        "a": (Rule((), Goto("b")), Rule((), Return())),
        "b": (Rule((LOOKUP,), Count()), Rule((LOOKUP,), Return()), Rule((), Return())),
    }
    assert walked(chains) == Met(5, 3)


def test_the_same_chain_twice() -> None:
    chains = {"top": (Rule((), Jump("a")), Rule((), Jump("a"))), "a": (Rule((), Return()), Rule((), Return()))}
    assert walked(chains) == Met(4, 0)
