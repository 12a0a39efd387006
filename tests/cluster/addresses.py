"""Who has which address: both families, the same in each cluster, since no two clusters share a namespace."""

from __future__ import annotations

from collections.abc import Sequence

CONTROL = ("10.99.0.1", "fd00:10:99::1")
LINK_PREFIXES = (24, 64)
PODS = ("10.244.0.0/16", "fd00:10:244::/56")
POD_MASKS = (24, 64)
SERVICES = ("10.96.0.0/16", "fd00:10:96::/112")
FIRST_SERVICE = "10.96.0.1"
API_PORT = 6443
ETCD = "http://127.0.0.1:2379"


def of_node(number: int) -> tuple[str, str]:
    """The addresses of the node that is number 1, 2, …."""
    return f"10.99.0.{10 + number}", f"fd00:10:99::{10 + number}"


def joined(both: Sequence[str]) -> str:
    """As Kubernetes' flags want a pair."""
    return ",".join(both)
