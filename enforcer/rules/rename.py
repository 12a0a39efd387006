"""Identities to names: which generation each set is, and what the chains that look in it are called then.

Layout knows sets by identity. A chain of an allow-set is named by its content, the names of its sets included, so a new
generation of a set makes another chain of every allow-set that looks in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from enforcer.rules import names
from enforcer.rules.dispatch import Chains
from enforcer.rules.ruleset import Goto, InSet, IpSet, Rule, RuleSet


class Renamed(Struct, frozen=True):
    """A chain as it was renamed: from `rules`, which name the sets and chains of `used`, to `chain`."""

    rules: tuple[Rule, ...]
    used: tuple[str, ...]
    name: str
    chain: tuple[Rule, ...]


class Known:
    """What a call of `rename` leaves for the next: chains by their name in layout, and sets' names by identity. What is
    the same as in the last call costs a look, and is the same object again."""

    def __init__(self) -> None:
        self.chains: dict[str, Renamed] = {}
        self.names: dict[str, str] = {}


def rename(wanted: RuleSet, set_names: Mapping[str, str], known: Known) -> RuleSet:
    """`wanted` with its sets under these names, and the chains of allow-sets under the names that follow."""
    new_names = dict(set_names)
    last = known.names
    moved = {identity for identity, name in set_names.items() if last.get(identity) != name}
    chains: Chains = {}
    entries: dict[str, Renamed] = {}
    # Chains of allow-sets lead to none of their kind, so their names are known when the others are looked at.
    for first in (True, False):
        for chain, rules in wanted.chains.items():
            if names.is_allow_chain(chain) is not first:
                continue
            before = known.chains.get(chain)
            if before and moved.isdisjoint(before.used) and (before.rules is rules or before.rules == rules):
                entry = before
            else:
                entry = renamed(chain, rules, new_names)
                if before is None or before.name != entry.name:
                    moved.add(chain)
            entries[chain] = entry
            new_names[chain] = entry.name
            chains[entry.name] = entry.chain
    known.chains, known.names = entries, dict(set_names)
    sets = {set_names[s.name]: IpSet(set_names[s.name], s.type, s.elements, s.counters) for s in wanted.sets.values()}
    return RuleSet(wanted.family, wanted.hooks, chains, sets)


def renamed(name: str, rules: tuple[Rule, ...], new_names: Mapping[str, str]) -> Renamed:
    named = used(rules)
    chain = tuple(_with_names(rule, new_names) for rule in rules) if named else rules
    if names.is_allow_chain(name):
        name = names.allow_chain(repr(chain))
    return Renamed(rules, named, name, chain)


def used(rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """The sets, and the chains of allow-sets, that the rules name."""
    found = dict.fromkeys(match.name for rule in rules for match in rule.matches if isinstance(match, InSet))
    targets = (rule.target.chain for rule in rules if isinstance(rule.target, Goto))
    return (*found, *dict.fromkeys(target for target in targets if names.is_allow_chain(target)))


def _with_names(rule: Rule, new_names: Mapping[str, str]) -> Rule:
    target = rule.target
    if isinstance(target, Goto) and names.is_allow_chain(target.chain):
        target = Goto(new_names[target.chain])
    matches = tuple(InSet(new_names[m.name], m.fields) if isinstance(m, InSet) else m for m in rule.matches)
    return Rule(matches, target, rule.comment)
