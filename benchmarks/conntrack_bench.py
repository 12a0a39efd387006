"""How soon flows end that a change forbids, in a table of 100,000 connections, and whether the others notice.

Timed is what follows the rules' transaction: from the compiled policies to the last bit written. Two tables: in one,
clients are 2,000 pods and 1,000 strangers; in the other every client is a stranger that no other flow has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.flow_table import addresses, fill, talks
from benchmarks.lane import forget_flows
from benchmarks.record import Figure, Size, figure
from compiler.compile import Compiled, compile_cluster
from enforcer import conntrack
from enforcer.layout import NodeView, local_pods
from enforcer.revocation import Judge
from lab import netns
from policy.cidr import Address, Family, parse_address
from policy.decode import decode_objects

MARK = 0x1000
LOCAL = 110
ONE_TARGET, ANY_TARGET = 100.0, 300.0
_FIRST: dict[Family, tuple[str, ...]] = {
    4: ("10.244.1.1", "10.245.0.0", "198.18.0.0", "203.0.113.0"),
    6: ("fd00:1::1", "fd00:2::", "2001:db8::", "2001:db8:ffff::"),
}
_EVERYONE: dict[Family, str] = {4: "0.0.0.0/0", 6: "::/0"}
_FORBIDDEN: dict[Family, str] = {4: "203.0.113.0/24", 6: "2001:db8:ffff::/48"}


def measure(size: Size) -> Iterator[Figure]:
    entries, runs = (100_000, 7) if size == "full" else (1_000, 2)
    name = f"bench-conntrack-{os.getpid()}"
    netns.create([name])
    try:
        with netns.inside(name):
            for family in (4, 6):
                yield from _ending(family, entries, runs)
    finally:
        netns.delete([name])


def _ending(family: Family, entries: int, runs: int) -> Iterator[Figure]:
    """1 % of the flows, in `mixed` and in the table of strangers, then those of one pod."""
    pods, far, strangers, forbidden = map(parse_address, _FIRST[family])
    servers = list(addresses(pods, LOCAL))
    few = entries // 100
    bad = list(addresses(forbidden, 100))
    mixed = [*addresses(far, 2000), *addresses(strangers, 1000)]
    crowd = list(addresses(strangers, entries))
    opened, closed, shut = (
        _cluster(family, servers, mixed[:2000], excepted, alone)
        for excepted, alone in (("", 0), (_FORBIDDEN[family], 0), ("", 1))
    )
    for clients, kind in ((mixed, "2,000 pods and 1,000 strangers"), (crowd, "a stranger each")):
        fill([*talks(clients, servers, entries - few, 1), *talks(bad, servers, few, 2)])
        case: dict[str, str | int] = {"entries": entries, "IPv": family, "clients": kind}
        ended = [_timed(opened, closed, None, few) for _ in range(runs)]
        yield figure("1 % of the flows end", ended, "ms", ANY_TARGET, **case)
        if clients is mixed:
            one = [_timed(opened, shut, {servers[0]}) for _ in range(runs)]
            # The kernel finds an IPv4 address by itself; for IPv6 its search is broken, so all flows are read.
            yield figure("all flows of one pod end", one, "ms", ONE_TARGET, **case)
        forget_flows()


def _timed(opened: Compiled, closed: Compiled, addresses: set[Address] | None, expected: int | None = None) -> float:
    """The ms that it takes to end what `closed` forbids; then those flows are restored."""
    ended, cost = _clock(lambda: _revoke(closed, addresses))
    if not ended or ended != (expected or ended):
        raise AssertionError(f"{ended} flows ended, not {expected}")
    judge = _judge(opened)
    if conntrack.write(MARK, False, conntrack.pardoned(judge, MARK)) != ended:
        raise AssertionError("not all of them may go on again")
    return cost


def _revoke(compiled: Compiled, addresses: set[Address] | None) -> int:
    return conntrack.write(MARK, True, conntrack.forbidden(_judge(compiled), MARK, addresses))


def _judge(compiled: Compiled) -> Judge:
    veths = {pod.key: f"veth:{pod.name}" for pod in compiled.cluster.pods if pod.node == "n1"}
    return Judge(compiled, NodeView("n1", veths), local_pods(compiled, "n1"), ())


def _clock(work: Callable[[], int]) -> tuple[int, float]:
    began = time.perf_counter()
    found = work()
    return found, (time.perf_counter() - began) * 1e3


def _cluster(
    family: Family, local: Sequence[Address], far: Sequence[Address], excepted: str = "", alone: int = 0
) -> Compiled:
    """Every local pod is isolated, and may be reached from pods and from everywhere but the `excepted` block; `alone`
    of them from nowhere."""
    pods = [(f"local-{n}", "n1", a, "alone" if n < alone else "served") for n, a in enumerate(local)]
    pods += [(f"far-{n}", "n2", a, "client") for n, a in enumerate(far)]
    objects = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "bench", "labels": {"role": role}},
            "spec": {"nodeName": node},
            "status": {"podIPs": [{"ip": str(address)}]},
        }
        for name, node, address, role in pods
    ]
    block: dict[str, object] = {"cidr": _EVERYONE[family], "except": [excepted] if excepted else []}
    sources = [{"podSelector": {"matchLabels": {"role": "client"}}}, {"ipBlock": block}]
    rules: dict[str, list[object]] = {"served": [{"from": sources}], "alone": []}
    for role, ingress in rules.items():
        spec = {"podSelector": {"matchLabels": {"role": role}}, "policyTypes": ["Ingress"], "ingress": ingress}
        meta = {"name": role, "namespace": "bench"}
        objects.append({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})
    return compile_cluster(decode_objects(objects).cluster)
