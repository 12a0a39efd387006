"""Many probes at once: one thread makes sockets in every namespace by hopping, and one loop drives them all, the
listening ends too."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby, takewhile
from pathlib import Path

from lab import netns
from lab.attempt import Attempt, start_datagram, start_raw, start_stream
from lab.loop import Loop
from lab.probe import Outcome, Probe, Result
from lab.servers import Servers, kernel_sctp
from lab.topology import Host, find
from policy.cidr import Address
from policy.errors import HostRefused, UsageError

IN_FLIGHT = 2000
TIMEOUT = 1.0

_BURST = 64  # launched between two looks at the sockets, so that no listening end's buffer overflows
_QUIET = 0.02
_SPARE_FILES = 64


class Prober:
    """Owns the listening sockets of all hosts until it is closed; they answer while `probe` runs."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._hosts = hosts
        self._servers: dict[str, Servers] = {}
        self._loop = Loop()
        _raise_file_limit()
        try:
            for host in {host.place: host for host in hosts.values()}.values():
                self._servers[host.place] = servers = Servers(host)
                for sock, handler in servers.handlers:
                    self._loop.watch(sock, handler)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for servers in self._servers.values():
            servers.close()
        self._servers.clear()
        self._loop.close()

    def probe(self, probes: Sequence[Probe], timeout: float = TIMEOUT, in_flight: int = IN_FLIGHT) -> list[Result]:
        """Results in the order of `probes`. `timeout` is the patience with each, in seconds; silence counts once it is
        over. UsageError for a place or family that the lab doesn't have."""
        attempts = [self._attempt(asked) for asked in probes]
        # By source, since every change of namespace costs.
        todo = deque(sorted(attempts, key=lambda attempt: attempt.asked.src))
        flying: dict[Attempt, None] = {}
        room = min(in_flight, _free_files())
        try:
            while todo or flying:
                burst = min(_BURST, room - len(flying), len(todo))
                self._launch([todo.popleft() for _ in range(burst)], flying)
                self._turn(flying, timeout, wait=not todo or len(flying) >= room)
        finally:
            for attempt in flying:
                attempt.clean()
        return [attempt.result for attempt in attempts if attempt.result is not None]

    def _attempt(self, asked: Probe) -> Attempt:
        src = find(self._hosts, asked.src)
        target = asked.dst if isinstance(asked.dst, Address) else find(self._hosts, asked.dst).address(asked.family)
        return Attempt(asked, asked.source or src.address(target.family), target)

    def _launch(self, attempts: Sequence[Attempt], flying: dict[Attempt, None]) -> None:
        for src, group in groupby(attempts, lambda attempt: attempt.asked.src):
            with netns.inside(self._hosts[src].netns):
                for attempt in group:
                    attempt.take_off(flying)
                    self._start(attempt)

    def _start(self, attempt: Attempt) -> None:
        match attempt.asked.protocol:
            case "SCTP" if not kernel_sctp():
                raw = self._servers[self._hosts[attempt.asked.src].place].raw
                if attempt.source not in raw:
                    raise UsageError(f"{attempt.asked.src} has no address {attempt.source} to send from")
                start_raw(attempt, raw[attempt.source])
            case "TCP" | "SCTP":
                start_stream(attempt, self._loop)
            case "UDP" | "ICMP":
                start_datagram(attempt, self._loop)

    def _turn(self, flying: dict[Attempt, None], timeout: float, wait: bool) -> None:
        """Handles what is ready. Where nothing more can be launched, it waits for that, and the overdue count as silent
        only after a moment of quiet: a machine too busy to look in time must not make a drop of an answer."""
        now = time.monotonic()
        oldest = next(iter(flying), None)
        due = oldest.started + timeout if oldest else now
        ready = self._loop.turn(max(due - now, _QUIET) if wait else 0.0)
        if wait and not ready:
            for attempt in list(takewhile(lambda attempt: attempt.started + timeout <= now, flying)):
                attempt.settle(Outcome.DROPPED)


def _raise_file_limit() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _free_files() -> int:
    """How many probes may be in flight before the process runs out of file descriptors."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = soft - sum(1 for _ in Path("/proc/self/fd").iterdir()) - _SPARE_FILES
    if free < 1:
        raise HostRefused(f"too few open files are allowed for this lab: {soft} (see ulimit -n)")
    return free
