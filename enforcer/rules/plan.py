"""The ordered steps from the rule-set that is in the kernel to the wanted one.

The invariant: after each step, every flow has its old verdict or its new one. Where only sets differ, and `effects` can
show that their elements may change one by one, they do, in place. Otherwise each differing set is made anew under
another generation, filled, and taken into use by the same transaction that changes the chains: a packet meets the old
rules with the old sets, or the new rules with the new sets. Sets that only count are always changed in place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from enforcer.rules import names
from enforcer.rules.dispatch import Chains
from enforcer.rules.effects import in_place, roles, stops_all
from enforcer.rules.parse import Counted, Foreign, Installed, InstalledSet
from enforcer.rules.rename import Known, rename
from enforcer.rules.render import table_size
from enforcer.rules.ruleset import Element, Goto, HookName, InSet, IpSet, Jump, Rule, RuleSet
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Plan, Step, Transaction
from policy.cidr import Family


class Actual(Struct, frozen=True):
    """What one family of the kernel holds of ours, as it was read back. `written` has the rules of those chains that
    are known for what we wrote: only what was carried out since it was read."""

    family: Family
    tables: Installed
    sets: dict[str, InstalledSet]
    written: Chains = {}


def plan(actual: Actual, wanted: RuleSet, known: Known | None = None, lazily: bool = False) -> Plan:
    """The steps; none where what is installed is what is wanted. A failed step leaves the old rules in force. All that
    decides comes first: what is behind the transaction, sets that nothing looks in any more, may wait.

    `lazily`: rules, chains and sets that no packet meets any more stay, and don't count as a difference.

    `known` is what an earlier call has left there, about a kernel of which `actual` holds all since: then only chains
    that are new to it cost anything. Afterwards it has the names of the sets."""
    known = Known() if known is None else known
    in_use = names_in_use(actual, wanted.sets.values(), known.names)
    if all(in_use.values()):
        as_it_is = rename(wanted, in_use, known)
        if _transaction(actual, as_it_is, lazily) is None:
            changes = [change for ipset in as_it_is.sets.values() if (change := _change(actual, ipset))]
            ordered = in_place(changes, roles(as_it_is.chains)) if changes else ()
            if ordered is not None:
                return (*ordered, *(() if lazily else dropped(actual, as_it_is.sets)))
    concrete = rename(wanted, choose_names(actual.sets, wanted.sets.values(), in_use), known)
    made = [MakeSet(wanted.family, ipset) for ipset in concrete.sets.values() if ipset.name not in actual.sets]
    counting = [change for ipset in concrete.sets.values() if (change := _change(actual, ipset))]
    transaction = _transaction(actual, concrete, lazily)
    unused = () if lazily else dropped(actual, concrete.sets)
    # Who is told of a denial follows what decides it: nobody is refused just before he is let in.
    return (*made, *([transaction] if transaction else []), *counting, *unused)


def _change(actual: Actual, ipset: IpSet) -> ChangeSet | None:
    """What an installed set has too little and too much."""
    if ipset.name not in actual.sets:
        return None
    before = actual.sets[ipset.name].ipset.elements
    if _equal(before, ipset.elements):
        return None
    return ChangeSet(ipset.name, tuple(sorted(ipset.elements - before)), tuple(sorted(before - ipset.elements)))


def dropped(actual: Actual, wanted: Container[str]) -> tuple[DropSet, ...]:
    """Without those that can't go: to ask for them each time would only cost."""
    unused = [name for name, known in actual.sets.items() if name not in wanted and not known.held]
    return tuple(map(DropSet, sorted(unused)))


def names_in_use(actual: Actual, wanted: Iterable[IpSet], known: Mapping[str, str]) -> dict[str, str]:
    """Identity to name: the generation that rules look in, where it can hold the wanted elements, whatever it holds
    now; else "". `known` says which, where there was a plan before."""
    generations = known or _generations_in_use(actual)
    chosen = {}
    for ipset in wanted:
        installed = actual.sets.get(generations.get(ipset.name, ""))
        fits = installed and _same_kind(installed.ipset, ipset) and _has_room(installed, ipset)
        chosen[ipset.name] = installed.ipset.name if installed and fits else ""
    return chosen


def _generations_in_use(actual: Actual) -> Mapping[str, str]:
    generations = {names.split_generation(name)[0]: name for name in actual.sets}
    if len(generations) == len(actual.sets):
        return generations
    used = {match.name for rules in _met(actual.tables) for each in rules for match in _matches(each.rule)}
    return {names.split_generation(name)[0]: name for name in sorted(used & actual.sets.keys())}


def _met(tables: Installed) -> Iterator[tuple[Counted, ...]]:
    """The rules that a packet may meet, chain by chain."""
    waiting = [target for targets in tables.builtin.values() for target in targets if target]
    seen = set(waiting)
    while waiting:
        rules = tables.chains.get(waiting.pop(), ())
        end = next((number for number, each in enumerate(rules, 1) if stops_all(each.rule)), len(rules))
        yield rules[:end]
        targets = [each.rule.target for each in rules[:end] if isinstance(each.rule, Rule)]
        further = {target.chain for target in targets if isinstance(target, Jump | Goto)} - seen
        seen |= further
        waiting += further


def ends(rules: Sequence[Rule | Foreign]) -> bool:
    """Whether no packet comes to what stands behind them in their chain."""
    return bool(rules) and stops_all(rules[-1])


def _has_room(installed: InstalledSet, wanted: IpSet) -> bool:
    """Elements come before others go, so for a while both may be there."""
    return len(installed.ipset.elements) + len(wanted.elements) <= installed.maxelem


def _matches(rule: Rule | Foreign) -> list[InSet]:
    return [match for match in rule.matches if isinstance(match, InSet)] if isinstance(rule, Rule) else []


def after(actual: Actual, steps: Plan) -> Actual:
    """What the kernel holds when the steps are carried out; counters start anew."""
    chains, sets = dict(actual.tables.chains), dict(actual.sets)
    builtin, written = dict(actual.tables.builtin), dict(actual.written)
    for step in steps:
        match step:
            case MakeSet(_, ipset):
                sets[ipset.name] = InstalledSet(ipset, {}, table_size(len(ipset.elements))[1])
            case ChangeSet(name, add, remove):
                sets[name] = with_elements(sets[name], (sets[name].ipset.elements | set(add)) - set(remove))
            case DropSet(name):
                del sets[name]
            case Transaction(_, write, delete, jump, unjump, insert):
                chains |= {name: tuple(map(Counted, rules)) for name, rules in write.items()}
                chains |= {name: (*map(Counted, rules), *chains[name]) for name, rules in insert.items()}
                written = {name: rules for name, rules in (written | write).items() if name not in insert}
                for name in delete:
                    del chains[name]
                    written.pop(name, None)
                for hook, chain in unjump:
                    builtin[hook] = _without_first(builtin[hook], chain)
                builtin |= {hook: (chain, *builtin.get(hook, ())) for hook, chain in jump.items()}
    return Actual(actual.family, Installed(chains, builtin), sets, written)


def with_elements(installed: InstalledSet, elements: frozenset[Element]) -> InstalledSet:
    known = installed.ipset
    return replace(installed, ipset=IpSet(known.name, known.type, elements, known.counters), counts={})


def _without_first(targets: tuple[str, ...], chain: str) -> tuple[str, ...]:
    at = targets.index(chain)
    return targets[:at] + targets[at + 1 :]


def held_by_others(actual: Actual) -> Actual:
    """What was just read, with the sets marked that more rules look in than ours."""
    ours = Counter(m.name for rules in actual.tables.chains.values() for r in rules for m in _matches(r.rule))
    sets = {name: replace(found, held=found.references > ours[name]) for name, found in actual.sets.items()}
    return replace(actual, sets=sets)


def remove_everything(actual: Actual) -> Plan:
    """The steps that take out all that is ours, and nothing else."""
    unjump = _jumps(actual.tables)
    delete = tuple(sorted(actual.tables.chains))
    steps: list[Step] = [Transaction(actual.family, {}, delete, unjump=unjump)] if delete or unjump else []
    return (*steps, *dropped(actual, ()))


def choose_names(
    actual: Mapping[str, InstalledSet], wanted: Iterable[IpSet], in_use: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Identity to name: the name of an installed generation with just these members, of those `in_use` first, else of
    an unused one."""
    chosen, generations = dict(in_use or {}), None
    for ipset in wanted:
        name = chosen.get(ipset.name)
        if name and serves(actual[name], ipset):
            continue
        generations = _generations(actual) if generations is None else generations
        present = generations.get(ipset.name, {})
        usable = (number for number, known in sorted(present.items()) if serves(known, ipset))
        unused = next(number for number in range(len(present) + 1) if number not in present)
        chosen[ipset.name] = names.generation_name(ipset.name, next(usable, unused))
    return chosen


def _generations(actual: Mapping[str, InstalledSet]) -> dict[str, dict[int, InstalledSet]]:
    found: dict[str, dict[int, InstalledSet]] = {}
    for name, installed in actual.items():
        identity, generation = names.split_generation(name)
        found.setdefault(identity, {})[generation] = installed
    return found


def serves(known: InstalledSet, wanted: IpSet) -> bool:
    """Whether rules may look in the installed set for the wanted one, at once or, where it decides nothing, once its
    members are changed."""
    if not _same_kind(known.ipset, wanted):
        return False
    return _equal(known.ipset.elements, wanted.elements) or (wanted.counters and _has_room(known, wanted))


def _equal(a: frozenset[Element], b: frozenset[Element]) -> bool:
    """Sets that are kept up are one object where nothing changed; comparing large ones costs."""
    return a is b or a == b


def _same_kind(known: IpSet, wanted: IpSet) -> bool:
    return known.type == wanted.type and known.counters == wanted.counters


def _transaction(actual: Actual, wanted: RuleSet, lazily: bool) -> Transaction | None:
    present = actual.tables.chains
    differ = {
        chain: rules
        for chain, rules in wanted.chains.items()
        if actual.written.get(chain) is not rules and (chain not in present or not _same(present[chain], rules, lazily))
    }
    insert = {chain: rules for chain, rules in differ.items() if lazily and chain in present and ends(rules)}
    write = {chain: rules for chain, rules in differ.items() if chain not in insert}
    delete = () if lazily else tuple(sorted(chain for chain in present if chain not in wanted.chains))
    jumps = _jumps(actual.tables)
    unjump = tuple(jump for jump in jumps if not _in_place(actual.tables, wanted, jump))
    jump = {
        builtin: chain
        for builtin, chain in wanted.hooks.items()
        if (builtin, chain) in unjump or (builtin, chain) not in jumps
    }
    if not (write or insert or delete or jump or unjump):
        return None
    return Transaction(wanted.family, write, delete, jump, unjump, insert)


def _jumps(installed: Installed) -> tuple[tuple[HookName, str], ...]:
    """Every jump of a built-in chain to one of ours, as often as it stands there."""
    hooks: tuple[HookName, ...] = ("FORWARD", "INPUT")
    return tuple((hook, target) for hook in hooks for target in installed.builtin.get(hook, ()) if target)


def _in_place(installed: Installed, wanted: RuleSet, jump: tuple[HookName, str]) -> bool:
    """Whether `jump` is wanted, stands first, and only once."""
    hook, chain = jump
    targets = installed.builtin[hook]
    return wanted.hooks.get(hook) == chain and targets[0] == chain and targets.count(chain) == 1


def _same(installed: tuple[Counted, ...], wanted: tuple[Rule, ...], lazily: bool) -> bool:
    """Whether the rules are the same to the kernel: comments, and the order of matches in a rule, say nothing; nor,
    `lazily`, what stands behind them, where no packet comes to it."""
    if len(installed) != len(wanted) and not (lazily and len(installed) > len(wanted) and ends(wanted)):
        return False
    return all(
        counted.rule is rule or _alike(counted.rule, rule) for counted, rule in zip(installed, wanted, strict=False)
    )


def _alike(known: Rule | Foreign, rule: Rule) -> bool:
    return (
        isinstance(known, Rule)
        and known.target == rule.target
        and (known.matches == rule.matches or frozenset(known.matches) == frozenset(rule.matches))
    )
