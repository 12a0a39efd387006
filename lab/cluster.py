"""A running lab: its namespaces come and go with it, also when it ends by an error or a signal.

`Lab` as a context manager lives as long as the block. `up`, `attach` and `down` are for separate processes; what they
share is a file that is written before anything is made, so `down` also finds what a killed run left.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import FrameType
from typing import Self

from msgspec.structs import replace

from lab import build, netns, state, topology
from lab.probe import Probe, Result
from lab.prober import IN_FLIGHT, TIMEOUT, Prober
from lab.topology import Attach, Host, Listen
from policy.errors import HostRefused, UsageError
from policy.model import Cluster, Pod

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNHANDLED = (signal.SIG_DFL, signal.default_int_handler)


class Lab:
    """A cluster of namespaces, up inside a `with` block. `cluster` is complete: every living pod has a node and
    addresses. All pods, nodes and OUTSIDE listen on `listen`, pods also on the ports that they declare. `attach` is how
    pods hang on their nodes."""

    def __init__(self, name: str, cluster: Cluster, listen: Sequence[Listen] = (), attach: Attach = "routed") -> None:
        self.name = name
        self.cluster = topology.complete(cluster)
        self._listen = tuple(listen)
        self._attach = attach
        self._hosts = topology.hosts(self.cluster, name, listen, attach)
        self._prober: Prober | None = None
        self._is_up = False
        self._exits = ExitStack()

    @property
    def nodes(self) -> list[str]:
        return [node.name for node in self.cluster.nodes]

    def host(self, place: str) -> Host:
        """The namespace of a pod's key, a node's name or OUTSIDE. UsageError where there is none."""
        return topology.find(self._hosts, place)

    def inside(self, place: str) -> AbstractContextManager[None]:
        """The current thread is in the namespace of `place`. See `netns.inside`."""
        return netns.inside(self.host(place).netns)

    def probe(self, probes: Sequence[Probe], timeout: float = TIMEOUT, in_flight: int = IN_FLIGHT) -> list[Result]:
        """See `Prober.probe`."""
        if self._prober is None:
            self._prober = Prober(self._hosts)
        return self._prober.probe(probes, timeout, in_flight)

    def run(self, place: str, argv: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a program in the namespace of `place`, each with an xtables lock of its own. See `netns.run_in`."""
        host = self.host(place)
        lock = state.folder(self.name) / f"{host.netns}.lock"
        return netns.run_in(host.netns, argv, stdin, {"XTABLES_LOCKFILE": str(lock)})

    def add(self, pod: Pod) -> Pod:
        """Starts a pod, and returns it with its node and addresses. UsageError where its key is taken."""
        if any(pod.key == other.key for other in self.cluster.pods):
            raise UsageError(f"the lab {self.name} has a pod {pod.key} already")
        before = {host.place for host in self._distinct()}
        self._change(topology.complete(replace(self.cluster, pods=[*self.cluster.pods, pod])))
        build.build([host for host in self._distinct() if host.place not in before], self._hosts)
        return self.cluster.pods[-1]

    def remove(self, key: str) -> None:
        """Ends a pod. UsageError where there is none."""
        host = self.host(key)
        self._change(replace(self.cluster, pods=[pod for pod in self.cluster.pods if pod.key != key]))
        if host.place == key:
            build.unbuild(host, self._hosts)

    def succeed(self, key: str, pod: Pod) -> Pod:
        """Ends a pod and starts `pod`, which may have its addresses: at once, as far as their node goes. Neither is its
        node itself. UsageError where there is none, or the new key is taken."""
        old = self.host(key)
        rest = [each for each in self.cluster.pods if each.key != key]
        if any(pod.key == other.key for other in rest):
            raise UsageError(f"the lab {self.name} has a pod {pod.key} already")
        self._change(topology.complete(replace(self.cluster, pods=[*rest, pod])))
        build.swap(old, self.host(pod.key), self._hosts)
        return self.cluster.pods[-1]

    def _change(self, cluster: Cluster) -> None:
        self.close()
        self.cluster = cluster
        self._hosts = topology.hosts(cluster, self.name, self._listen, self._attach)
        self._save()

    def _save(self) -> None:
        state.save(self.name, self.cluster, self._listen, self._attach)

    def _distinct(self) -> list[Host]:
        """Each namespace once, routers first."""
        return list({host.place: host for host in self._hosts.values()}.values())

    def close(self) -> None:
        """Ends the listening sockets, and nothing else; the next probe makes new ones."""
        if self._prober:
            self._prober.close()
            self._prober = None

    def up(self) -> None:
        """Makes the lab, which stays until `down`. UsageError where its name is taken; HostRefused where the host
        can't have one."""
        if not netns.privileged():
            raise HostRefused(f"a lab needs root; this gives a shell where there can be one: {netns.rootless_shell()}")
        try:
            with _signals_wait():
                state.claim(self.name)
                self._is_up = True
                self._save()
            build.build(self._distinct(), self._hosts)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Takes away all that the lab made. Nothing where it isn't up."""
        if self._is_up:
            with _signals_wait():
                self.close()
                netns.delete([host.netns for host in self._distinct()])
                state.release(self.name)
                self._is_up = False

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            exits.enter_context(_signals_call(self.down))
            exits.callback(self.down)
            self.up()
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._exits.close()


def attach(name: str) -> Lab:
    """The lab that another process left up. UsageError where there is none."""
    kept = state.load(name)
    lab = Lab(name, kept.cluster, kept.listen, kept.attach)
    lab._is_up = True
    return lab


def down(name: str) -> None:
    """Takes a lab away, also what a killed run left of it. UsageError where there is none."""
    try:
        lab = attach(name)
    except state.NeverBuilt:
        state.release(name)
    else:
        lab.down()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Signals come afterwards: a cleaning up that is interrupted cleans nothing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _signals_call(clean: Callable[[], None]) -> Iterator[None]:
    """What ends the process calls `clean` first, at once: to raise and let `finally` blocks do it has moments, at the
    ends of a `with` block, when none would. Only where nobody else handles the signal."""

    def leave(number: int, _frame: FrameType | None) -> None:
        clean()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _SIGNALS if ours}
    unhandled = [number for number, handler in before.items() if handler in _UNHANDLED]
    for number in unhandled:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in unhandled:
            signal.signal(number, before[number])
