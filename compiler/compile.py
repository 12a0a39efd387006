"""From objects to the allow-sets of pods, and to the members of their peer-sets.

Whatever is asked is computed when it is first asked for; pods of equal namespace, labels and ports share the answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from compiler.allowset import OPEN, AllowSet
from compiler.classes import PodClass
from compiler.members import members, named_members
from compiler.peers import Member, PeerSet
from compiler.policies import Policies
from compiler.population import Population
from compiler.ports import NamedPort
from policy.cidr import Address
from policy.model import Cluster, Direction, Labels, NetworkPolicy, Pod

__all__ = ["Compiled", "Member", "State", "compile_cluster"]


class State:
    """What the objects mean, as they are at present. Nothing in it depends on the order in which they came."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Nothing is known any more."""
        self._population = Population()
        self._policies = Policies()

    @property
    def pods(self) -> Mapping[str, Pod]:
        """All of them, by key."""
        return self._population.pods

    @property
    def namespaces(self) -> Mapping[str, Labels]:
        return self._population.namespaces

    def selecting(self, pod: Pod) -> tuple[NetworkPolicy, ...]:
        """The policies that select `pod` as their subject, by name."""
        return tuple(entry.policy for entry in self._policies.selecting(self._class(pod))) if pod.selectable else ()

    def allow(self, pod: Pod, direction: Direction) -> AllowSet:
        """What `pod` may do in `direction`; OPEN where no policy of that direction selects it (semantics, row 1)."""
        return self._policies.allow(self._class(pod), direction) if pod.selectable else OPEN

    def members(self, peers: PeerSet) -> frozenset[Member]:
        """The addresses of the pods that the terms select; the peer-set's own addresses are not members."""
        return members(self._population, peers)

    def named_members(self, name: NamedPort, peers: PeerSet) -> frozenset[Member]:
        """Address, protocol and port of each pod among `peers` that has such a port."""
        return named_members(self._population, name, peers)

    def pod_at(self, address: Address) -> Pod | None:
        """The pod that has `address` for its own: not a finished one, nor one in its node's network. None also while it
        can't be told whose it is; see `Population.owner`."""
        key = self._population.owner(address)
        return self.pods[key] if key else None

    def _class(self, pod: Pod) -> PodClass:
        known = self._population.class_of.get(pod.key)
        return known if known and self.pods[pod.key] is pod else self._population.class_for(pod)


class Compiled(State):
    """One cluster, all at once, with the objects of other kinds beside it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        for namespace in cluster.namespaces:
            self._population.declare(namespace.name, namespace)
        for pod in cluster.pods:
            self._population.put(pod.key, pod)
        for policy in cluster.policies:
            self._policies.set(policy.namespace, policy.name, policy)


def compile_cluster(cluster: Cluster) -> Compiled:
    return Compiled(cluster)
