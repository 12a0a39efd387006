"""One node's kernel: read what is there, say what would change, change it, or take it all out.

The only module that strings the kernel's programs together. Reading comes first, each time: nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from msgspec import Struct

from compiler.compile import Compiled
from enforcer.attachment import cni_follow, links
from enforcer.attachment.attach import Attached, attach
from enforcer.attachment.cni_cache import Hints
from enforcer.attachment.hostview import HostView
from enforcer.connections.flows import installed_marks
from enforcer.kernel import conntrack, iptables
from enforcer.kernel.backend import LOCK_WAIT, Backend, checked
from enforcer.kernel.bridges import bridge_filtering
from enforcer.kernel.ipset import Sets
from enforcer.rules import strangers
from enforcer.rules.layout import NodeView, layout, local_pods
from enforcer.rules.plan import Actual, held_by_others, plan, remove_everything
from enforcer.rules.ruleset import RuleSet
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Plan, Transaction
from policy.cidr import Family, Prefix
from policy.errors import HostRefused, KernelRejected


class FamilyPlan(Struct, frozen=True):
    """One family's steps, with what they start from and lead to."""

    actual: Actual
    wanted: RuleSet
    steps: Plan


def attached(
    compiled: Compiled,
    node: str,
    given: Mapping[str, str],
    pod_cidrs: Sequence[Prefix] = (),
    host_interfaces: Sequence[str] = (),
) -> Attached:
    """The attachments of the pods of `node`, from one reading of this host. Where all are given, a host that can't be
    read is as good: rules may be rendered anywhere."""
    pods = local_pods(compiled, node)
    try:
        view = links.dump()
    except HostRefused:
        if any(pod.key not in given for pod in pods):
            raise
        view = HostView()
    return attach(view, pods, given, Hints(cni_follow.read()), pod_cidrs, host_interfaces)


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
    """This host's kernel for a keeper: sets through one socket, tables through restore programs that stay open. Both
    belong to the thread that uses them, and to the network namespace that it is in at the first change."""

    def __init__(self, backend: Backend, sets: Sets, lock_wait: int = LOCK_WAIT) -> None:
        self._backend = backend
        self._sets = sets
        self._tables = iptables.Tables(backend, lock_wait=lock_wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the programs; the sets are their owner's."""
        self._tables.close()

    @property
    def lazy(self) -> bool:
        """nft destroys what was deleted in a worker, for which whoever adds a match of xtables waits, 8 to 16 ms."""
        return self._backend.mode == "nft"

    def read(self, family: Family) -> Actual:
        return held_by_others(Actual(family, iptables.read(self._backend, family), self._sets.read(family)))

    def begin(self, steps: Plan) -> Callable[[], None]:
        """Carries out the steps in order up to a transaction, which is left under way; what comes back waits for it and
        carries out the rest. Either stops at the first that fails (KernelRejected): the rules that were in force still
        are, or the wanted ones already."""
        for number, step in enumerate(steps):
            if isinstance(step, Transaction):
                return partial(self._finish, self._tables.begin(step.family, step.text), steps[number + 1 :])
            self._change(step)
        return lambda: None

    def _finish(self, wait: Callable[[], None], rest: Plan) -> None:
        wait()
        self.execute(rest)

    def execute(self, steps: Plan) -> None:
        self.begin(steps)()

    def _change(self, step: MakeSet | ChangeSet | DropSet) -> None:
        match step:
            case MakeSet(family, ipset):
                self._sets.make(ipset, family)
            case ChangeSet(name, add, remove):
                self._sets.change(name, add, remove)
            case DropSet(name):
                # One that stays opens nothing, and must not keep the other family waiting; it is read back again.
                with suppress(KernelRejected):
                    self._sets.destroy(name)


def execute(backend: Backend, steps: Plan, lock_wait: int = LOCK_WAIT) -> None:
    """See `HostKernel.begin`."""
    with Sets() as sets, HostKernel(backend, sets, lock_wait) as kernel:
        kernel.execute(steps)


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
