"""Places: pods that no policy can tell apart, together, so that a question about many pods is asked once.

A place is the running pods of one namespace with the same workload (without one, with the same labels), of which all
policies see the same: the labels that selectors ask for, the ports of the names in use, and the blocks that hold the
addresses. Nothing is sampled: what is true of one of its pods is true of each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache

from msgspec import Struct

from compiler.compile import Compiled
from compiler.prefixes import AddressSet, block_addresses
from policy.cidr import Address, Family
from policy.model import Cluster, NetworkPolicy, Pod
from policy.selector import Selector

# Of a flow: its address family; 0 where neither end has an address yet.
FlowFamily = Family | int
FAMILIES: tuple[Family, Family] = (4, 6)


class Place(Struct, frozen=True, eq=False):
    """`pods` are all of them, in order, and the first stands for them. `families` are those of its addresses."""

    name: str
    pods: tuple[Pod, ...]
    families: frozenset[Family]

    @property
    def pod(self) -> Pod:
        return self.pods[0]

    @property
    def namespace(self) -> str:
        return self.pod.namespace

    @property
    def is_one_pod(self) -> bool:
        """Whether there is no other pod here that its pod could speak with."""
        return len(self.pods) == 1 and not self.pod.stands_in

    def is_held_by(self, addresses: AddressSet, family: FlowFamily) -> bool:
        """Whether what the place has of `family` is in `addresses`; an address that it is yet to get, only if all of
        the family is (semantics, row 24)."""
        if self.pod.addresses:
            return all(addresses.contains(each) for each in self.pod.addresses if each.family == family)
        if not family:
            return addresses.is_whole(4) and addresses.is_whole(6)
        return addresses.is_whole(6 if family == 6 else 4)


@lru_cache(maxsize=256)
def _common(ours: frozenset[Family], theirs: frozenset[Family]) -> tuple[FlowFamily, ...]:
    if ours and theirs:
        return tuple(sorted(ours & theirs))
    return tuple(sorted(ours or theirs)) or (0,)


def families_between(one: Place, other: Place) -> tuple[FlowFamily, ...]:
    """Those in which the two can speak."""
    return _common(one.families, other.families)


def places(compiled: Compiled) -> tuple[Place, ...]:
    """Every pod that policies may select, each in one place; in the order of their first pods."""
    seen = _Seen(compiled.cluster)
    groups: dict[Hashable, list[Pod]] = {}
    for pod in compiled.cluster.pods:
        if pod.selectable:
            groups.setdefault(seen.traits(pod), []).append(pod)
    taken: dict[str, int] = {}
    for pods in groups.values():
        name = _plain_name(pods[0])
        taken[name] = taken.get(name, 0) + 1
    return tuple(Place(_name(pods[0], taken), tuple(pods), _families(pods[0])) for pods in groups.values())


def _families(pod: Pod) -> frozenset[Family]:
    return frozenset(address.family for address in pod.addresses)


def _plain_name(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.workload}" if pod.workload else pod.key


def _name(pod: Pod, taken: dict[str, int]) -> str:
    """Pods of one workload that policies tell apart are called by their first pod too."""
    name = _plain_name(pod)
    return name if taken[name] == 1 else f"{name} ({pod.name})"


class _Seen:
    """What the policies of one cluster can see of a pod."""

    def __init__(self, cluster: Cluster) -> None:
        self._keys = frozenset(test.key for found in _selectors(cluster.policies) for test in found.tests)
        self._names = frozenset(
            port.port
            for policy in cluster.policies
            for rule in (*policy.ingress, *policy.egress)
            for port in rule.ports
            if isinstance(port.port, str)
        )
        blocks = dict.fromkeys(
            peer.block
            for policy in cluster.policies
            for rule in (*policy.ingress, *policy.egress)
            for peer in rule.peers
            if peer.block
        )
        self._blocks = [block_addresses(block) for block in blocks]
        self._cuts: dict[Family, list[int]] = {
            family: sorted(
                {edge for each in self._blocks for span in each.of(family) for edge in (span[0], span[1] + 1)}
            )
            for family in FAMILIES
        }
        self._held: dict[tuple[Family, int], frozenset[int]] = {}

    def traits(self, pod: Pod) -> Hashable:
        labels = pod.labels
        keys = labels if not pod.workload else self._keys & labels.keys()
        ports = pod.ports if not pod.workload else tuple(port for port in pod.ports if port.name in self._names)
        return (
            pod.namespace,
            pod.workload,
            pod.stands_in,
            frozenset((key, labels[key]) for key in keys),
            tuple((port.name, port.protocol, port.port) for port in ports),
            tuple(sorted((address.family, *sorted(self._holding(address))) for address in pod.addresses)),
        )

    def _holding(self, address: Address) -> frozenset[int]:
        """The numbers of the blocks that hold it: the same between two edges."""
        stretch = bisect_right(self._cuts[address.family], address.value)
        found = self._held.get((address.family, stretch))
        if found is None:
            found = frozenset(number for number, block in enumerate(self._blocks) if block.contains(address))
            self._held[address.family, stretch] = found
        return found


def _selectors(policies: Iterable[NetworkPolicy]) -> Iterator[Selector]:
    """Those that are asked about the labels of pods."""
    for policy in policies:
        yield policy.subjects
        for rule in (*policy.ingress, *policy.egress):
            for peer in rule.peers:
                if peer.pods is not None:
                    yield peer.pods
