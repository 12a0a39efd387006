"""A dataplane in memory: it carries out plans step by step, fails where told, and says whether a packet passes."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from enforcer.readback.simulate import Outcome, Packet, Simulator
from enforcer.rules.parse import Counted, Installed, InstalledSet
from enforcer.rules.plan import Actual
from enforcer.rules.ruleset import Goto, HookName, InSet, IpSet, Jump, Rule, RuleSet
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Plan, Step, Transaction
from policy.cidr import Family


class StepFailed(Exception):
    pass


class FakeDataplane:
    """One family. As in the kernel, a transaction is whole or nothing, a set that is looked in can't be destroyed, and
    a rule can't look in a set, or lead to a chain, that does not exist."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.chains: dict[str, tuple[Rule, ...]] = {}
        self.sets: dict[str, IpSet] = {}
        self.builtin: dict[HookName, tuple[str, ...]] = {"FORWARD": (), "INPUT": ()}
        self.maxelem = 65536

    def read(self) -> Actual:
        chains = {name: tuple(Counted(rule) for rule in rules) for name, rules in self.chains.items()}
        sets = {name: InstalledSet(ipset, {}, self.maxelem) for name, ipset in self.sets.items()}
        return Actual(self.family, Installed(chains, dict(self.builtin)), sets)

    def execute(self, plan: Plan, fail_at: int | None = None) -> None:
        for number, step in enumerate(plan):
            if number == fail_at:
                raise StepFailed(number)
            self.step(step)

    def step(self, step: Step) -> None:
        match step:
            case MakeSet(family, ipset):
                assert family == self.family and ipset.name not in self.sets
                self.sets[ipset.name] = ipset
            case ChangeSet(name, add, remove):
                known = self.sets[name]
                assert not set(add) & known.elements and set(remove) <= known.elements
                elements = (known.elements | set(add)) - set(remove)
                # To the kernel it is the same element.
                assert not {replace(element, nomatch=not element.nomatch) for element in add} & known.elements
                assert len(known.elements) + len(add) <= self.maxelem
                self.sets[name] = IpSet(name, known.type, elements, known.counters)
            case DropSet(name):
                assert not any(name == used for used in self._sets_in_use())
                del self.sets[name]
            case Transaction():
                self._transaction(step)

    def _transaction(self, step: Transaction) -> None:
        chains = self.chains | step.write
        chains |= {name: (*rules, *chains[name]) for name, rules in step.insert.items()}
        for name in step.delete:
            del chains[name]
        for builtin, chain in step.unjump:
            targets = list(self.builtin[builtin])
            targets.remove(chain)
            self.builtin[builtin] = tuple(targets)
        for builtin, chain in step.jump.items():
            self.builtin[builtin] = (chain, *self.builtin[builtin])
        self.chains = chains
        targets = [r.target.chain for rules in chains.values() for r in rules if isinstance(r.target, Jump | Goto)]
        assert set(targets) <= chains.keys(), "a rule leads to a chain that does not exist"
        assert set(self._sets_in_use()) <= self.sets.keys(), "a rule looks in a set that does not exist"

    def _sets_in_use(self) -> list[str]:
        rules = [rule for rules in self.chains.values() for rule in rules]
        return [match.name for rule in rules for match in rule.matches if isinstance(match, InSet)]

    def passes(self, hook: HookName, packet: Packet) -> bool:
        (answer,) = self.verdicts([(hook, packet)])
        return answer

    def verdicts(self, asked: Iterable[tuple[HookName, Packet]]) -> list[bool]:
        return [outcome == "accept" for outcome in self.outcomes(asked)]

    def outcomes(self, asked: Iterable[tuple[HookName, Packet]]) -> list[Outcome]:
        """Where nothing of ours is hooked everything passes, as on a node without podfence."""
        hooks = {builtin: ours[0] for builtin, targets in self.builtin.items() if (ours := [t for t in targets if t])}
        simulator = Simulator(RuleSet(self.family, hooks, self.chains, self.sets))
        return [simulator.walk(hook, packet).outcome for hook, packet in asked]
