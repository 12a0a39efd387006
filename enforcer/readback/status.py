"""What is installed, summed up for people: whether it is in force, how large it is, and who was denied how often."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from enforcer.rules import names
from enforcer.rules.modes import Mode
from enforcer.rules.parse import Counted, Foreign
from enforcer.rules.plan import Actual
from enforcer.rules.ruleset import Drop, Dst, HookName, Reject, Return, Rule, Src
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
    denied to the pod that forbids it. `mode` is the node's, as far as rules show it: "off" where there are none; in
    audit `spoofed` and `unknown` packets have passed. `audited` are packets of pods in audit that would be denied."""

    family: Family
    mode: Mode
    in_force: bool
    chains: int
    rules: int
    foreign_rules: int
    sets: int
    elements: int
    isolated: dict[Direction, int]
    denied: tuple[Denied, ...]
    audited: tuple[Denied, ...]
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
        _mode(chains),
        in_force,
        len(chains),
        len(rules),
        sum(isinstance(counted.rule, Foreign) for counted in rules),
        len(sets),
        sum(len(found.ipset.elements) for found in sets.values()),
        isolated,
        tuple(sorted(_counted(actual, "denied"))),
        tuple(sorted(_counted(actual, "audited"))),
        _stopped(chains.get(names.SPOOFED, ())),
        _stopped(chains.get(names.UNKNOWN, ())),
        _stopped(chains.get(names.REVOKED, ())),
    )


def installed_mode(actual: Actual) -> Mode:
    """What the rules show of the node's mode; "enforce" where there are none, which is what policies are made for."""
    return "audit" if _mode(actual.tables.chains) == "audit" else "enforce"


def _mode(chains: Mapping[str, tuple[Counted, ...]]) -> Mode:
    if not chains:
        return "off"
    returns = any(isinstance(c.rule, Rule) and c.rule.target == Return() for c in chains.get(names.SPOOFED, ()))
    return "audit" if returns else "enforce"


def _pod_prefix(direction: Direction) -> str:
    return names.pod_chain(direction, "", "", "")[: len("PF-i-")]


def _counted(actual: Actual, word: str) -> list[Denied]:
    pods = _pods(actual)
    found = []
    for name, installed in actual.sets.items():
        for direction in DIRECTIONS:
            if names.split_generation(name)[0] == names.set_name(actual.family, f"{word}-{direction}"):
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


def _stopped(rules: tuple[Counted, ...]) -> int:
    ends = Drop | Reject | Return
    return sum(c.packets for c in rules if isinstance(c.rule, Rule) and isinstance(c.rule.target, ends))
