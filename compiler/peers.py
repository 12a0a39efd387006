"""The other end of a rule, kept symbolic: which pods by their labels, and which addresses.

Pods come and go without a peer-set changing; only its members, which the index knows, do. A pod's address counts
among the addresses too (semantics, row 16), so a block can admit a pod that no selector does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from compiler.ports import NamedPort
from compiler.prefixes import ALL_ADDRESSES, NO_ADDRESSES, AddressSet, block_addresses
from policy.cidr import Address
from policy.model import Labels, Peer, Pod, Protocol
from policy.selector import EVERYTHING, Selector, namespace_named


class PodTerm(Struct, frozen=True, order=True, cache_hash=True):
    """The selectable pods that `pods` selects in the namespaces that `namespaces` selects."""

    namespaces: Selector
    pods: Selector

    def matches(self, pod: Pod, namespace_labels: Labels) -> bool:
        return pod.selectable and self.pods.matches(pod.labels) and self.namespaces.matches(namespace_labels)

    @property
    def is_empty(self) -> bool:
        return self.namespaces.is_nothing or self.pods.is_nothing


class PeerSet(Struct, frozen=True, order=True, cache_hash=True):
    """A union of pod terms, sorted, and of addresses. Where the addresses are all of both families no term is kept."""

    pods: tuple[PodTerm, ...] = ()
    addresses: AddressSet = NO_ADDRESSES

    def __bool__(self) -> bool:
        return bool(self.pods or self.addresses)

    def __len__(self) -> int:
        """How many parts it is made of."""
        return len(self.pods) + len(self.addresses.v4) + len(self.addresses.v6)

    def matches_pod(self, pod: Pod, namespaces: Mapping[str, Labels]) -> bool:
        """Whether a term selects the pod; the addresses are not asked."""
        labels = namespaces[pod.namespace]
        return any(term.matches(pod, labels) for term in self.pods)


# What has members: the pods of a peer-set's terms, or the ports of one name that the pods of a peer-set have.
NamedSource = tuple[NamedPort, PeerSet]
Source = PeerSet | NamedSource
# An address; of a named source with the protocol and the number of the port.
Member = tuple[Address, Protocol | None, int]
EVERYONE = PeerSet((), ALL_ADDRESSES)
# All pods, as a source to which no rule compiles: what only its members change decides nothing.
EVERY_POD = PeerSet((PodTerm(EVERYTHING, EVERYTHING),), ALL_ADDRESSES)
NOBODY = PeerSet()


def peer_set(terms: Iterable[PodTerm], addresses: AddressSet) -> PeerSet:
    if addresses == ALL_ADDRESSES:
        return EVERYONE
    return PeerSet(tuple(sorted({term for term in terms if not term.is_empty})), addresses)


def peers_of(peer: Peer, policy_namespace: str) -> PeerSet:
    """One entry of `from` or `to`. Both selectors are ANDed; podSelector alone means the policy's own namespace
    (semantics, rows 11 to 14)."""
    if peer.block is not None:
        return peer_set((), block_addresses(peer.block))
    if peer.pods is None and peer.namespaces is None:
        return NOBODY
    scope = namespace_named(policy_namespace) if peer.namespaces is None else peer.namespaces
    return peer_set([PodTerm(scope, EVERYTHING if peer.pods is None else peer.pods)], NO_ADDRESSES)
