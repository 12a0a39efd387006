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
from enforcer.rules import names
from enforcer.rules.allow import AllowChain, allow_rules
from enforcer.rules.dispatch import Chains
from enforcer.rules.layout import Layout, Made
from enforcer.rules.leaves import PodRules
from enforcer.rules.members import SetSpec
from enforcer.rules.parse import InstalledSet
from enforcer.rules.plan import Actual, serves
from enforcer.rules.rename import Known, renamed, used
from enforcer.rules.ruleset import Goto, IpSet
from enforcer.rules.steps import MakeSet, Plan, Transaction
from policy.model import Direction

Asked = Mapping[Subject, SubjectChange]


class Patch(Struct, frozen=True):
    """The chains to write, and those that nothing leads to any more, all by their names in layout."""

    write: Chains
    delete: tuple[str, ...]
    specs: tuple[SetSpec, ...]
    unused: tuple[str, ...]

    def of(self, before: Layout) -> Layout:
        chains = before.chains | self.write
        specs = before.specs | {spec.name: spec for spec in self.specs}
        for name in self.delete:
            del chains[name]
        for name in self.unused:
            del specs[name]
        return replace(before, chains=chains, specs=specs)


def patch(before: Layout, made: Made, changes: Asked) -> Patch | None:
    """What the changes make of the layout `before`, which `made` belongs to and then follows; None, and nothing is
    touched, where more than the end of pods' chains may differ."""
    pods: dict[tuple[str, Direction], PodRules] = {}
    chains: dict[tuple[int, Direction], AllowChain] = {}
    for (key, direction), change in changes.items():
        if change.new is None or not change.new.isolated:
            return None
        if (key, direction) in made.elsewhere:
            continue
        known = made.pods.get((key, direction))
        if known is None:
            return None
        if not known.chain or known.chain[-1].target != Goto(known.allow.name):
            return None
        which = (id(change.new), direction)
        held = made.chains.get(which)
        allow = held[1] if held else chains.get(which) or allow_rules(change.new, direction, before.family)
        chains[which] = allow
        last = replace(known.chain[-1], target=Goto(allow.name))
        pods[key, direction] = replace(known, allow=allow, chain=(*known.chain[:-1], last))
    earlier = {allow.name for _, allow in made.chains.values() if allow.rules}
    made.pods.update(pods)
    for (key, direction), rules in pods.items():
        allow_set = changes[key, direction].new
        assert allow_set is not None
        made.chains[id(allow_set), direction] = (allow_set, rules.allow)
    return _difference(before, made, pods, earlier)


def _difference(before: Layout, made: Made, pods: Mapping[tuple[str, Direction], PodRules], earlier: set[str]) -> Patch:
    in_use = {id(rules.allow) for rules in made.pods.values()}
    made.chains = {which: held for which, held in made.chains.items() if id(held[1]) in in_use}
    wanted = {allow.name: allow for _, allow in made.chains.values() if allow.rules}
    specs = {spec.name: spec for allow in wanted.values() for spec in allow.sets}
    specs |= {name: before.specs[name] for name in used(before.chains[names.DENY["ingress"]]) if name in before.specs}
    write = {rules.name: rules.chain for rules in pods.values() if before.chains[rules.name] != rules.chain}
    write |= {name: allow.rules for name, allow in wanted.items() if name not in before.chains}
    return Patch(
        write,
        tuple(sorted(earlier - wanted.keys())),
        tuple(spec for name, spec in specs.items() if name not in before.specs),
        tuple(name for name in before.specs if name not in specs),
    )


def patch_plan(actual: Actual, found: Patch, sets: Iterable[IpSet], known: Known, lazily: bool) -> Plan:
    """The steps; `sets` are those of the patch's specs, with their members. All other sets are as they should be, and
    `known`, which follows, is what the last plan left. `lazily` as in `plan`."""
    made = []
    for ipset in sets:
        name, is_there = _generation(actual.sets, ipset)
        known.names[ipset.name] = name
        if not is_there:
            made.append(MakeSet(actual.family, replace(ipset, name=name)))
    for identity in found.unused:
        del known.names[identity]
    gone = sorted(known.chains.pop(chain).name for chain in found.delete)
    new_names, differ = dict(known.names), {}
    # Chains of allow-sets first, as in `rename`.
    for chain in sorted(found.write, key=lambda name: not names.is_allow_chain(name)):
        rules = found.write[chain]
        new_names.update((each, known.chains[each].name) for each in used(rules) if names.is_allow_chain(each))
        entry = known.chains[chain] = renamed(chain, rules, new_names)
        # A chain of an allow-set is named by what it holds; one that waited to be taken out is wanted again.
        if not (names.is_allow_chain(chain) and entry.name in actual.tables.chains):
            differ[entry.name] = entry.chain
    insert = {chain: rules for chain, rules in differ.items() if lazily and chain in actual.tables.chains}
    write = {chain: rules for chain, rules in differ.items() if chain not in insert}
    delete = () if lazily else tuple(gone)
    if differ or delete:
        return (*made, Transaction(actual.family, write, delete, insert=insert))
    return tuple(made)


def _generation(actual: Mapping[str, InstalledSet], ipset: IpSet) -> tuple[str, bool]:
    """A name for a set that nothing looks in yet, and whether there is one of just these members."""
    for number in count():
        name = names.generation_name(ipset.name, number)
        installed = actual.get(name)
        if installed is None or serves(installed, ipset):
            return name, installed is not None
    raise AssertionError
