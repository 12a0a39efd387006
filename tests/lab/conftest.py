"""Small clusters for the lab's tests, and labs of their own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence

import pytest

from lab.cluster import Lab
from lab.topology import Listen
from policy.model import Cluster, ContainerPort, Node, Pod, Protocol

ALL: tuple[Protocol, ...] = ("TCP", "UDP", "SCTP")
PORTS = tuple(ContainerPort("", protocol, 80) for protocol in ALL)
_numbers = itertools.count()


def cluster_of(*pods: Pod, nodes: Sequence[Node] = ()) -> Cluster:
    return Cluster(namespaces=[], pods=list(pods), policies=[], services=[], slices=[], nodes=list(nodes))


def pods(count: int) -> list[Pod]:
    return [Pod("x", f"p{number}", {}, ports=PORTS) for number in range(count)]


@pytest.fixture
def lab_of() -> Callable[..., Lab]:
    """Makes a lab with a name that no other test has, here or in a parallel process; the test brings it up."""

    def make(*its_pods: Pod, listen: Sequence[Listen] = ()) -> Lab:
        return Lab(f"test-{os.getpid()}-{next(_numbers)}", cluster_of(*its_pods), listen)

    return make
