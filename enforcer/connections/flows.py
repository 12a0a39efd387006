"""What becomes of existing flows when a node's rules change, from what its kernel held before.

For rules that are applied by hand, all at once; of a running node `ender` takes care.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from compiler.compile import Compiled
from enforcer.attachment.links import own_addresses
from enforcer.connections.revocation import Judge
from enforcer.kernel import conntrack
from enforcer.kernel.conntrack_wire import Identity
from enforcer.rules import names
from enforcer.rules.layout import NodeView, local_pods
from enforcer.rules.plan import Actual
from enforcer.rules.ruleset import ConnMark, Rule
from policy.cidr import BITS, Address


class Flows(Struct, frozen=True):
    """`ended` and `restored` are the flows whose bit was wrong. `spared` ones are forbidden too and go on, since they
    were to be kept, or since this is the node's `first_sync`: nothing of ours was there."""

    ended: int
    restored: int
    spared: int
    first_sync: bool


class Change:
    """One change of one node's rules; made before it, since it looks at what the kernel holds."""

    def __init__(self, compiled: Compiled, node: NodeView, before: Sequence[Actual]) -> None:
        self._mark = node.mark
        self._old_marks = {mark for actual in before for mark in installed_marks(actual)} - {node.mark}
        self._first_sync = not any(actual.tables.chains for actual in before)
        known = {address for actual in before for address in known_addresses(actual)}
        local = {address for pod in compiled.cluster.pods if pod.key in node.veths for address in pod.addresses}
        pods = local_pods(compiled, node.name)
        self._judge = Judge(compiled, node, pods, own_addresses(BITS), known - local)

    def foresee(self, end: bool) -> Flows:
        """What `settle` would do."""
        forbidden, pardoned = self._survey()
        return self._flows(end, len(forbidden), len(pardoned))

    def settle(self, end: bool) -> Flows:
        """Ends and restores flows, once the new rules are in force. A node's first sync ends none: it may be mistaken
        about everything."""
        forbidden, pardoned = self._survey()
        ends = end and not self._first_sync
        ended = conntrack.write(self._mark, True, forbidden) if ends else len(forbidden)
        restored = conntrack.write(self._mark, False, pardoned)
        for mark in self._old_marks:
            conntrack.forget(mark)
        return self._flows(end, ended, restored)

    def _survey(self) -> tuple[list[Identity], list[Identity]]:
        """The flows without the bit that should have it, and those with it that should not; each entry is read once."""
        judge, mark = self._judge, self._mark
        return conntrack.forbidden(judge, mark), conntrack.pardoned(judge, mark)

    def _flows(self, end: bool, forbidden: int, restored: int) -> Flows:
        end = end and not self._first_sync
        return Flows(forbidden if end else 0, restored, 0 if end else forbidden, self._first_sync)


def installed_marks(actual: Actual) -> set[int]:
    """The bits that the installed rules look at."""
    return {
        match.bit
        for counted in actual.tables.chains.get(names.FORWARD, ())
        if isinstance(counted.rule, Rule)
        for match in counted.rule.matches
        if isinstance(match, ConnMark)
    }


def known_addresses(actual: Actual) -> set[Address]:
    """The addresses that the installed rules know as those of pods."""
    identity = names.set_name(actual.family, "known")
    return {
        Address(element.prefix.family, element.prefix.network)
        for name, installed in actual.sets.items()
        if names.split_generation(name)[0] == identity
        for element in installed.ipset.elements
    }
