"""One cluster for all tests of a kind of CNI, since a start takes longer than a test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster


@pytest.fixture(scope="module", params=["ptp", "bridge"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes, Ready, with each kind of pod network after the other."""
    with Cluster(f"pytest-{os.getpid()}-{request.param}", cni=request.param) as cluster:
        yield cluster
