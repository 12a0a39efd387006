"""How long a node with many veths takes to be read, how soon a change is seen, and what following costs when idle.

A change is what a plugin does for a pod: a veth, up, then the host route. Timed is from just before the kernel is asked
for the route, the last step, until a view that has it is told; so the views of the steps before it are in its way.
"""

from __future__ import annotations

import os
import queue
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute

from benchmarks.record import Figure, Size, figure, percentile
from enforcer.attachment.attach import attach
from enforcer.attachment.hostview import HostView
from enforcer.attachment.links import HostLinks, dump
from lab import netns
from policy.cidr import Prefix, parse_address, parse_cidr
from policy.model import Pod

_READ_TARGET, _SEEN_TARGET, _IDLE_TARGET = 10.0, 10.0, 0.01
_CIDRS = (parse_cidr("10.244.0.0/16"),)


def measure(size: Size) -> Iterator[Figure]:
    veths, changes, idle = (250, 200, 10.0) if size == "full" else (10, 5, 0.2)
    node, pods = (f"bench-links-{os.getpid()}-{kind}" for kind in ("node", "pods"))
    netns.create([node, pods])
    try:
        with netns.inside(node):
            _ip(line for number in range(veths) for line in _pod(number, pods))
            yield from _reading(veths, 50 if size == "full" else 3)
            yield from _following(veths, changes, idle, pods)
    finally:
        netns.delete([node, pods])


def _reading(veths: int, runs: int) -> Iterator[Figure]:
    known = [Pod("bench", f"p{n}", {}, f"uid-{n}", "n1", (parse_address(_address(n)),)) for n in range(veths)]
    reads, finds = [], []
    for _ in range(runs):
        began = time.perf_counter()
        host = dump()
        read = time.perf_counter()
        found = attach(host, known, pod_cidrs=_CIDRS)
        finds.append((time.perf_counter() - read) * 1e3)
        reads.append((read - began) * 1e3)
        if len(found.veths) != veths:
            raise AssertionError(f"{len(found.veths)} of {veths} pods were found")
    yield figure("a whole reading of the host", reads, "ms", _READ_TARGET, veths=veths)
    yield figure("every pod's interface found in it", finds, "ms", _READ_TARGET, veths=veths)


def _following(veths: int, changes: int, idle: float, pods: str) -> Iterator[Figure]:
    views: queue.Queue[tuple[float, HostView]] = queue.Queue()
    with HostLinks(lambda v: views.put((time.perf_counter(), v))), IPRoute() as kernel, _opened(pods) as elsewhere:
        took = [_seen(views, kernel, veths + number, elsewhere) for number in range(changes)]
        what = "a route to a new pod asked for, until a view has it"
        yield figure(f"{what}, p50", took, "ms", _SEEN_TARGET, veths=veths)
        yield figure(f"{what}, p99", [percentile(took, 99)], "ms", veths=veths)
        time.sleep(1.5)  # carriers are told of up to a second late
        before, began = _cpu(), time.monotonic()
        time.sleep(idle)
        share = (_cpu() - before) / (time.monotonic() - began)
        yield figure("following while nothing changes, of one core", [share], "ratio", _IDLE_TARGET, veths=veths)


@contextmanager
def _opened(name: str) -> Iterator[int]:
    """A namespace as a descriptor, for the kernel to put things into."""
    fd = os.open(netns.FOLDER / name, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def _seen(views: queue.Queue[tuple[float, HostView]], kernel: Any, number: int, elsewhere: int) -> float:
    """Its ms. Then the pod is taken away, and that is seen too."""
    prefix, name = parse_cidr(f"{_address(number)}/32"), f"v{number}"
    kernel.link("add", ifname=name, kind="veth", peer={"ifname": f"p{number}", "net_ns_fd": elsewhere})
    index = kernel.link_lookup(ifname=name)[0]
    kernel.link("set", index=index, state="up")
    began = time.perf_counter()
    kernel.route("add", dst=str(prefix), oif=index)
    took = (_told(views, prefix, True) - began) * 1e3
    kernel.link("del", index=index)
    _told(views, prefix, False)
    return took


def _told(views: queue.Queue[tuple[float, HostView]], prefix: Prefix, there: bool) -> float:
    while True:
        at, view = views.get(timeout=10)
        if any(route.prefix == prefix for route in view.routes) == there:
            return at


def _pod(number: int, pods: str) -> list[str]:
    return [
        f"link add v{number} type veth peer name p{number} netns {pods}",
        f"link set v{number} up",
        f"route add {_address(number)}/32 dev v{number}",
    ]


def _address(number: int) -> str:
    return f"10.244.{number // 250}.{number % 250 + 1}"


def _ip(lines: Iterable[str]) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
