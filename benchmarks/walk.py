"""How many of our rules a packet meets, and how many set lookups: what a cost is made of."""

from __future__ import annotations

from msgspec import Struct

from enforcer.readback.simulate import Packet, Simulator
from enforcer.rules.dispatch import Chains
from enforcer.rules.ruleset import Count, Drop, Goto, InSet, Jump, Nflog, Rule, RuleSet


class Met(Struct, frozen=True):
    """`rules` that were compared with the packet, those that matched among them, and `lookups` in sets."""

    rules: int
    lookups: int


def met(ruleset: RuleSet, packet: Packet) -> Met:
    """On the way of `packet` through FORWARD."""
    compared: list[Rule] = []
    walked = [(ruleset.hooks["FORWARD"], 0)]  # chains that are to be gone on with, and from which rule
    for step in Simulator(ruleset).walk("FORWARD", packet).steps:
        while (place := walked.pop())[0] != step.chain:
            compared += ruleset.chains[place[0]][place[1] :]
        chain, start = place
        rules = ruleset.chains[chain]
        compared += rules[start : step.rule + 1]
        match rules[step.rule].target:
            case Jump(target):
                walked += [(chain, step.rule + 1), (target, 0)]
            case Goto(target):
                walked.append((target, 0))
            case Nflog() | Count():
                walked.append((chain, step.rule + 1))
    for chain, start in walked:
        compared += ruleset.chains[chain][start:]
    return Met(len(compared), sum(_lookups(rule, packet) for rule in compared))


def _lookups(rule: Rule, packet: Packet) -> int:
    """A rule has one lookup at most, made if all matches before it match."""
    for number, match in enumerate(rule.matches):
        if isinstance(match, InSet):
            before: Chains = {"before": (Rule(rule.matches[:number], Drop()),)}
            alone = RuleSet(packet.src.family, {"FORWARD": "before"}, before, {})
            return int(Simulator(alone).walk("FORWARD", packet).outcome == "drop")
    return 0
