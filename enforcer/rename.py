"""Identities to names: which generation each set is, and what the chains that look in it are called then.

Layout knows sets by identity. A chain of an allow-set is named by its content, the names of its sets included, so a new
generation of a set makes another chain of every allow-set that looks in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from enforcer import names
from enforcer.dispatch import Chains
from enforcer.ruleset import Goto, InSet, IpSet, Rule, RuleSet


class Renamed(Struct, frozen=True):
    """A chain as it was renamed: from `rules`, in which the names of `used` stand for `inputs`, to `chain`."""

    rules: tuple[Rule, ...]
    used: tuple[str, ...]
    inputs: tuple[str, ...]
    name: str
    chain: tuple[Rule, ...]


# By the chain's name in layout. What is the same as in the last call is the same object again.
Known = dict[str, Renamed]


def rename(wanted: RuleSet, set_names: Mapping[str, str], known: Known) -> RuleSet:
    """`wanted` with its sets under these names, and the chains of allow-sets under the names that follow."""
    new_names = dict(set_names)
    chains: Chains = {}
    renamed: Known = {}
    # Chains of allow-sets lead to none of their kind, so their names are known when the others are looked at.
    for chain in sorted(wanted.chains, key=lambda name: not names.is_allow_chain(name)):
        entry = renamed[chain] = _renamed(chain, wanted.chains[chain], new_names, known.get(chain))
        new_names[chain] = entry.name
        chains[entry.name] = entry.chain
    known.clear()
    known.update(renamed)
    sets = {set_names[s.name]: IpSet(set_names[s.name], s.type, s.elements, s.counters) for s in wanted.sets.values()}
    return RuleSet(wanted.family, wanted.hooks, chains, sets)


def _renamed(name: str, rules: tuple[Rule, ...], new_names: Mapping[str, str], last: Renamed | None) -> Renamed:
    used = last.used if last and last.rules is rules else _used(rules)
    inputs = tuple(new_names[each] for each in used)
    if last and last.rules is rules and last.inputs == inputs:
        return last
    chain = tuple(_with_names(rule, new_names) for rule in rules) if used else rules
    if names.is_allow_chain(name):
        name = names.allow_chain(repr(chain))
    return Renamed(rules, used, inputs, name, chain)


def _used(rules: tuple[Rule, ...]) -> tuple[str, ...]:
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
