"""The lab: how long a cluster of namespaces takes to come up, and a matrix of real connections through it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import permutations

from benchmarks.record import Figure, Size, figure
from lab.cluster import Lab
from lab.probe import Outcome, Probe
from policy.errors import HostRefused
from policy.model import Cluster, ContainerPort, Pod

_PORT = 80
_MATRIX_TARGET = 30.0


def measure(size: Size) -> Iterator[Figure]:
    pods, runs = (50, 7) if size == "full" else (5, 2)
    ports = (ContainerPort("", "TCP", _PORT),)
    cluster = Cluster([], [Pod("bench", f"p{n}", {}, ports=ports) for n in range(pods)], [], [], [], [])
    probes = [Probe(src.key, dst.key, "TCP", _PORT) for src, dst in permutations(cluster.pods, 2)]
    up, matrix = [], []
    for run in range(runs):
        began = time.monotonic()
        with Lab(f"bench-{os.getpid()}-{run}", cluster) as lab:
            up.append(time.monotonic() - began)
            began = time.monotonic()
            results = lab.probe(probes)
            matrix.append(time.monotonic() - began)
        if any(result.outcome != Outcome.OPEN for result in results):
            raise HostRefused("without any policy all connections should open: something on this host drops packets")
    yield figure("lab up", up, "s", pods=pods, nodes=2)
    yield figure("every pod connects to every other by TCP", matrix, "s", _MATRIX_TARGET, pods=pods)
