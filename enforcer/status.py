"""What is installed, summed up for people: whether it is in force, how large it is, and who was denied how often."""

from __future__ import annotations

from msgspec import Struct

from enforcer import names
from enforcer.parse import Counted, Foreign
from enforcer.plan import Actual
from enforcer.ruleset import Drop, Dst, HookName, Reject, Rule, Src
from policy.cidr import Address, Family, Prefix
from policy.model import DIRECTIONS, Direction

HOOKS: dict[HookName, str] = {"FORWARD": names.FORWARD, "INPUT": names.INPUT}


class Denied(Struct, frozen=True, order=True):
    """Packets denied to (ingress) or from (egress) a pod's address since its rules were made."""

    pod: str
    address: str
    direction: Direction
    packets: int


class FamilyStatus(Struct, frozen=True):
    """`in_force`: both hooks stand first in their built-in chains. `spoofed` and `unknown` are dropped
    packets, `revoked` those that came back in a flow that has ended; those that went on its first packet's way are
    denied to the pod that forbids it."""

    family: Family
    in_force: bool
    chains: int
    rules: int
    foreign_rules: int
    sets: int
    elements: int
    isolated: dict[Direction, int]
    denied: tuple[Denied, ...]
    spoofed: int
    unknown: int
    revoked: int


def status(actual: Actual) -> FamilyStatus:
    chains, sets = actual.tables.chains, actual.sets
    rules = [counted for rules in chains.values() for counted in rules]
    in_force = all(actual.tables.builtin.get(hook, ())[:1] == (chain,) for hook, chain in HOOKS.items())
    isolated = {direction: sum(name.startswith(_pod_prefix(direction)) for name in chains) for direction in DIRECTIONS}
    return FamilyStatus(
        actual.family,
        in_force,
        len(chains),
        len(rules),
        sum(isinstance(counted.rule, Foreign) for counted in rules),
        len(sets),
        sum(len(found.ipset.elements) for found in sets.values()),
        isolated,
        tuple(sorted(_denied(actual))),
        _dropped(chains.get(names.SPOOFED, ())),
        _dropped(chains.get(names.UNKNOWN, ())),
        _dropped(chains.get(names.REVOKED, ())),
    )


def _pod_prefix(direction: Direction) -> str:
    return names.pod_chain(direction, "", "", "")[: len("PF-i-")]


def _denied(actual: Actual) -> list[Denied]:
    pods = _pods(actual)
    found = []
    for name, installed in actual.sets.items():
        for direction in DIRECTIONS:
            if names.split_generation(name)[0] == names.set_name(actual.family, f"denied-{direction}"):
                for element, packets in installed.counts.items():
                    pod = pods.get(element.prefix, "?")
                    address = str(Address(actual.family, element.prefix.network))
                    found.append(Denied(pod, address, direction, packets))
    return [denied for denied in found if denied.packets]


def _pods(actual: Actual) -> dict[Prefix, str]:
    """Which pod has an address, by the comments of the leaves of dispatch."""
    return {
        match.prefix: counted.rule.comment
        for rules in actual.tables.chains.values()
        for counted in rules
        if isinstance(counted.rule, Rule) and counted.rule.comment
        for match in counted.rule.matches
        if isinstance(match, Src | Dst)
    }


def _dropped(rules: tuple[Counted, ...]) -> int:
    return sum(c.packets for c in rules if isinstance(c.rule, Rule) and isinstance(c.rule.target, Drop | Reject))
