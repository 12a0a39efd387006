"""How soon flows end that a change forbids, in a table of 100,000 connections, and whether the others notice.

Timed is what follows the rules' transaction: from the compiled policies to the last bit written. Two tables: in one,
clients are 2,000 pods and 1,000 strangers; in the other every client is a stranger that no other flow has.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from msgspec.structs import replace

from benchmarks.flow_table import addresses, fill, talks
from benchmarks.lane import forget_flows
from benchmarks.record import Figure, Size, figure
from compiler.compile import Compiled, compile_cluster
from compiler.index import Index
from enforcer.connections.concern import Concern, concern, owners_of, touched
from enforcer.connections.ender import Ender, Moment, Stage
from enforcer.connections.gate import Gate
from enforcer.connections.remembered import Memory
from enforcer.connections.revocation import Judge
from enforcer.kernel import conntrack
from enforcer.kernel.conntrack_wire import dump_request
from enforcer.rules.layout import NodeView, local_pods
from lab import netns
from policy.cidr import Address, Family, parse_address
from policy.decode import decode_objects

MARK = 0x1000
LOCAL = 110
ONE_TARGET, ANY_TARGET, WAIT_TARGET = 100.0, 300.0, 2.0
_DONE = b"\3\0"
_NETLINK_NETFILTER = 12
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
            bare = [_clock(lambda: _bare_dump(family))[1] for _ in range(runs)]
            yield figure("the kernel gives the whole table, nobody reads it", bare, "ms", None, **case)
            yield from _service(opened, shut, runs, case)
        forget_flows()


def _service(opened: Compiled, shut: Compiled, runs: int, case: dict[str, str | int]) -> Iterator[Figure]:
    """An ender in a thread of its own: from what it is told to the last bit, for one pod and for all; and how long at
    most another thread waits for it, which changes a pod far away every 10 ms."""
    index, gate = Index("n1"), Gate()
    reached: dict[str, float] = {}
    done = threading.Event()

    def observe(stage: Stage, _: float) -> None:
        reached[stage] = time.perf_counter()
        if stage == "restored":
            done.set()

    ender = Ender(index, gate, Memory(None), period=0, observe=observe, complain=print)
    index.apply([*opened.cluster.namespaces, *opened.cluster.pods, *opened.cluster.policies])
    local = {pod.key: pod for pod in opened.cluster.pods if pod.node == "n1"}
    moment = Moment(NodeView("n1", {key: f"veth:{key}" for key in local}), tuple(local.values()), frozenset())
    ender.hand_over(owners_of(moment.local, index))
    thread = ender.start()

    far = opened.cluster.pods[-1]
    relabelled = (replace(far, labels=far.labels | {"n": str(number)}) for number in count())

    def run(told: Concern) -> tuple[float, float]:
        done.clear()
        waits = [0.0]
        began = time.perf_counter()
        ender.tell(told, moment)
        while not done.is_set():
            change = [next(relabelled)]
            about = touched(index, change)
            asked = time.perf_counter()
            with gate.changing(about):
                waits.append((time.perf_counter() - asked) * 1e3)
                index.apply(change)
            time.sleep(0.01)
        return (reached["ended"] - began) * 1e3, max(waits)

    reached["ended"] = 0.0
    run(Concern(restores=True))
    one, every = [], []
    first, alone = opened.cluster.pods[0], shut.cluster.pods[0]
    for _ in range(runs):
        with gate.changing():
            changes = index.apply([alone])
        ended = ender.counts.ended
        one.append(run(concern(changes, {alone.key: alone})))
        if ender.counts.ended == ended:
            raise AssertionError("no flow ended")
        with gate.changing():
            changes = index.apply([first])
        run(concern(changes, {first.key: first}))
        every.append(run(Concern(everything=True, restores=True)))
    ender.stop()
    thread.join()
    yield figure("service: all flows of one pod end", [took for took, _ in one], "ms", ONE_TARGET, **case)
    yield figure("service: the whole table is looked at", [took for took, _ in every], "ms", ANY_TARGET, **case)
    longest = [wait for _, wait in (*one, *every)]
    yield figure("service: another thread waits for the index at most", longest, "ms", WAIT_TARGET, **case)


def _bare_dump(family: Family) -> int:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        sock.send(dump_request(MARK, False, family))
        read = 0
        while (answer := sock.recv(1 << 17))[4:6] != _DONE:
            read += len(answer)
    return read


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
