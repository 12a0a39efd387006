"""Members: the addresses, and for a named port the addresses with ports, that the pods of a peer-set bring.

Here they are found from nothing; `compiler.live` keeps up with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from compiler.allowset import AllowSet
from compiler.classes import PodClass
from compiler.peers import Member, PeerSet, PodTerm, Source
from compiler.population import Population
from compiler.ports import NamedPort
from policy.model import ContainerPort

__all__ = ["Member", "addresses_in", "members", "named_members", "numbers", "selected", "sources_of"]


def sources_of(allow: AllowSet) -> Iterator[Source]:
    """Those that the grants of `allow` speak of. Blocks are no members, so they are left out of plain sources."""
    for grant in allow.grants:
        if isinstance(grant.ports, NamedPort):
            yield grant.ports, grant.peers
        elif grant.peers.pods:
            yield PeerSet(grant.peers.pods)


def members(population: Population, peers: PeerSet) -> frozenset[Member]:
    """The addresses of the pods that the terms select."""
    return addresses_in(population, selected(population, peers.pods))


def named_members(population: Population, name: NamedPort, peers: PeerSet) -> frozenset[Member]:
    """Address, protocol and port of each pod among `peers` that has such a port; a pod is among them by a term or by
    its address (semantics, row 20: without `to`, and to an ipBlock, a name resolves only at pods)."""
    chosen = selected(population, peers.pods)
    return frozenset(
        (address, name.protocol, number)
        for found in (population.classes() if peers.addresses else chosen)
        for number in numbers(found.ports, name)
        for pod in found.pods.values()
        for address in pod.addresses
        if (found in chosen or peers.addresses.contains(address)) and population.owner(address) == pod.key
    )


def selected(population: Population, terms: Iterable[PodTerm]) -> set[PodClass]:
    return {found for term in terms for found in population.classes_of(term)}


def addresses_in(population: Population, classes: Iterable[PodClass]) -> frozenset[Member]:
    """Those of the pods of the classes, without those that are another pod's by now."""
    pods = ((key, pod) for found in classes for key, pod in found.pods.items())
    if not population.contested:
        return frozenset([(address, None, 0) for _, pod in pods for address in pod.addresses])
    owner = population.owner
    return frozenset([(a, None, 0) for key, pod in pods for a in pod.addresses if owner(a) == key])


def numbers(ports: Iterable[ContainerPort], name: NamedPort) -> tuple[int, ...]:
    return tuple(port.port for port in ports if port.name == name.name and port.protocol == name.protocol)
