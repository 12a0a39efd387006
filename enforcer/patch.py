"""A short way for the usual change of rules: some pods, isolated before and after, get other allow-sets.

Then no leaf and no set of the node's own pods differs: only the last rule of those pods' chains, which leads to the
chain of an allow-set, and such chains and their sets come and go. What this finds is what `lay_out` and `plan` would
find, at a cost that follows the change; where anything else may differ it finds nothing, and they are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count

from msgspec import Struct
from msgspec.structs import replace

from compiler.changes import Subject, SubjectChange
from enforcer import names
from enforcer.allow import AllowChain, allow_rules
from enforcer.dispatch import Chains
from enforcer.layout import Layout, Made, PodRules
from enforcer.members import SetSpec
from enforcer.parse import InstalledSet
from enforcer.plan import Actual, serves
from enforcer.rename import Known, renamed, used
from enforcer.ruleset import Goto, IpSet
from enforcer.steps import MakeSet, Plan, Transaction
from policy.model import Direction

Asked = Mapping[Subject, SubjectChange]


class Patch(Struct, frozen=True):
    """The chains to write, and those that nothing leads to any more, all by their names in layout."""

    write: Chains
    delete: tuple[str, ...]
    specs: tuple[SetSpec, ...]
    unused: tuple[str, ...]

    def of(self, before: Layout) -> Layout:
        chains = {name: rules for name, rules in before.chains.items() if name not in self.delete}
        specs = {name: spec for name, spec in before.specs.items() if name not in self.unused}
        return replace(before, chains=chains | self.write, specs=specs | {spec.name: spec for spec in self.specs})


def patch(before: Layout, made: Made, changes: Asked) -> Patch | None:
    """What the changes make of the layout `before`, which `made` belongs to and then follows; None, and nothing is
    touched, where more than the end of pods' chains may differ."""
    pods: dict[tuple[str, Direction], PodRules] = {}
    chains: dict[tuple[int, Direction], AllowChain] = {}
    for (key, direction), change in changes.items():
        known = made.pods.get((key, direction))
        if known is None or change.new is None or not change.new.isolated:
            return None
        if not known.chain or known.chain[-1].target != Goto(known.allow.name):
            return None
        which = (id(change.new), direction)
        held = made.chains.get(which)
        allow = held[1] if held else chains.get(which) or allow_rules(change.new, direction, before.family)
        chains[which] = allow
        last = replace(known.chain[-1], target=Goto(allow.name))
        pods[key, direction] = replace(known, allow=allow, chain=(*known.chain[:-1], last))
    made.pods.update(pods)
    for (key, direction), change in changes.items():
        if change.new is not None:
            made.chains[id(change.new), direction] = (change.new, pods[key, direction].allow)
    return _difference(before, made, pods)


def _difference(before: Layout, made: Made, pods: Mapping[tuple[str, Direction], PodRules]) -> Patch:
    in_use = {id(rules.allow) for rules in made.pods.values()}
    made.chains = {which: held for which, held in made.chains.items() if id(held[1]) in in_use}
    wanted = {allow.name: allow for _, allow in made.chains.values() if allow.rules}
    specs = {spec.name: spec for allow in wanted.values() for spec in allow.sets}
    write = {rules.name: rules.chain for rules in pods.values() if before.chains[rules.name] != rules.chain}
    write |= {name: allow.rules for name, allow in wanted.items() if name not in before.chains}
    gone = (name for name in before.chains if names.is_allow_chain(name) and name not in wanted)
    return Patch(
        write,
        tuple(gone),
        tuple(spec for name, spec in specs.items() if name not in before.specs),
        tuple(name for name in before.specs if name not in specs),
    )


def patch_plan(actual: Actual, found: Patch, sets: Iterable[IpSet], known: Known) -> Plan:
    """The steps; `sets` are those of the patch's specs, with their members. All other sets are as they should be, and
    `known`, which follows, is what the last plan left."""
    made = []
    for ipset in sets:
        name, is_there = _generation(actual.sets, ipset)
        known.names[ipset.name] = name
        if not is_there:
            made.append(MakeSet(actual.family, replace(ipset, name=name)))
    for identity in found.unused:
        del known.names[identity]
    delete = tuple(sorted(known.chains.pop(chain).name for chain in found.delete))
    new_names, write = dict(known.names), {}
    # Chains of allow-sets first, as in `rename`.
    for chain in sorted(found.write, key=lambda name: not names.is_allow_chain(name)):
        rules = found.write[chain]
        new_names.update((each, known.chains[each].name) for each in used(rules) if names.is_allow_chain(each))
        entry = known.chains[chain] = renamed(chain, rules, new_names)
        write[entry.name] = entry.chain
    return (*made, Transaction(actual.family, write, delete)) if write or delete else tuple(made)


def _generation(actual: Mapping[str, InstalledSet], ipset: IpSet) -> tuple[str, bool]:
    """A name for a set that nothing looks in yet, and whether there is one of just these members."""
    for number in count():
        name = names.generation_name(ipset.name, number)
        installed = actual.get(name)
        if installed is None or serves(installed.ipset, ipset):
            return name, installed is not None
    raise AssertionError
