"""One node's kernel: read what is there, say what would change, change it, or take it all out.

The only module that strings the kernel's programs together. Reading comes first, each time: nothing is remembered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain

from msgspec import Struct

from compiler.compile import Compiled
from enforcer import conntrack, iptables, strangers
from enforcer.backend import Backend, checked
from enforcer.bridges import bridge_filtering
from enforcer.flows import installed_marks
from enforcer.ipset import Sets
from enforcer.layout import NodeView, layout, local_pods
from enforcer.links import host_routes
from enforcer.plan import Actual, held_by_others, plan, remove_everything
from enforcer.ruleset import RuleSet
from enforcer.steps import ChangeSet, DropSet, MakeSet, Plan, Transaction
from policy.cidr import Family
from policy.errors import HostRefused, KernelRejected


class FamilyPlan(Struct, frozen=True):
    """One family's steps, with what they start from and lead to."""

    actual: Actual
    wanted: RuleSet
    steps: Plan


def veths(compiled: Compiled, node: str, families: Sequence[Family], given: Mapping[str, str]) -> dict[str, str]:
    """Pod key to interface: as `given`, else where those of the pod's addresses that have routes lead to one interface,
    and to which no other pod's lead: two pods behind one could each take the other's address."""
    pods = [pod for pod in local_pods(compiled, node) if pod.key not in given]
    routes = host_routes(families) if pods else {}
    leads = {pod.key: {routes[address] for address in pod.addresses if address in routes} for pod in pods}
    behind = Counter([*given.values(), *chain.from_iterable(leads.values())])
    single = {key: found.pop() for key, found in leads.items() if len(found) == 1}
    return dict(given) | {key: veth for key, veth in single.items() if behind[veth] == 1}


def read(backend: Backend, family: Family) -> Actual:
    with Sets() as sets:
        return HostKernel(backend, sets).read(family)


def mark_writers(backend: Backend, mark: int) -> tuple[str, ...]:
    """The rules of the host, in whatever table, that may change the bit `mark` of connection marks."""
    saved = (checked([backend.program(family, "save")]) for family in backend.families)
    return tuple(rule for text in saved for rule in strangers.mark_writers(text, mark))


def plans(backend: Backend, compiled: Compiled, node: NodeView) -> tuple[FamilyPlan, ...]:
    """What would change, family by family. HostRefused where pods are behind a bridge that iptables does not see."""
    if node.pod_bridges and node.mode != "off" and (problem := bridge_filtering(backend.families)):
        raise HostRefused(f"bridged pods of {node.name} can't be enforced: {problem}")
    return tuple(
        FamilyPlan(actual, wanted, plan(actual, wanted))
        for family in backend.families
        for actual, wanted in [(read(backend, family), layout(compiled, node, family))]
    )


class HostKernel:
    """This host's kernel for a keeper: sets through one socket, which belongs to the thread that uses it."""

    def __init__(self, backend: Backend, sets: Sets) -> None:
        self._backend = backend
        self._sets = sets

    def read(self, family: Family) -> Actual:
        return held_by_others(Actual(family, iptables.read(self._backend, family), self._sets.read(family)))

    def execute(self, steps: Plan) -> None:
        """Carries out the steps in order, and stops at the first that fails (KernelRejected): the rules that were in
        force still are, or the wanted ones already."""
        for step in steps:
            match step:
                case Transaction(family):
                    iptables.restore(self._backend, family, step.text)
                case MakeSet(family, ipset):
                    self._sets.make(ipset, family)
                case ChangeSet(name, add, remove):
                    self._sets.change(name, add, remove)
                case DropSet(name):
                    # One that stays opens nothing, and must not keep the other family waiting; it is read back again.
                    with suppress(KernelRejected):
                        self._sets.destroy(name)


def execute(backend: Backend, steps: Plan) -> None:
    """See `HostKernel.execute`."""
    with Sets() as sets:
        HostKernel(backend, sets).execute(steps)


def cleanup(backend: Backend) -> tuple[Plan, ...]:
    """Takes out everything of ours, of every family, connection marks too; the steps that did it."""
    done, marks = [], set()
    for family in backend.families:
        actual = read(backend, family)
        marks |= installed_marks(actual)
        steps = remove_everything(actual)
        execute(backend, steps)
        done.append(steps)
    for mark in marks:
        conntrack.forget(mark)
    return tuple(done)
