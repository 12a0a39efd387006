"""What was denied, told on: a log line each, those of late for who asks, and new ones for who follows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from queue import Empty, Full, Queue
from socket import if_indextoname
from threading import Lock

import msgspec

from compiler.compile import State
from enforcer.agent import log
from enforcer.agent.denials import Denial, StateNames, Teller
from enforcer.connections.gate import Gate
from enforcer.kernel.nflog import NflogReader
from enforcer.kernel.nflog_wire import Logged
from policy.errors import HostRefused

_OF_LATE = 200
_BACKLOG = 1000
_PAUSE = 1.0


class Tales:
    """`take` belongs to the thread that reads the log group, `tell` to whoever asks."""

    def __init__(self, state: State, gate: Gate, lost: Callable[[int], None]) -> None:
        self._teller = Teller(StateNames(state, _interface, gate), time.monotonic, time.time)
        self._of_late: deque[Denial] = deque(maxlen=_OF_LATE)
        self._followers: set[Queue[Denial]] = set()
        self._lock = Lock()
        self._lost = lost
        self._reader: NflogReader | None = None
        self._lost_before = 0

    def begin(self, group: int, stack: ExitStack, complain: Callable[[str], None] = log.warning) -> None:
        """Reads the log group until `stack` ends. Where another program has it, that is logged, and rules are none the
        worse for it."""
        try:
            self._reader = stack.enter_context(NflogReader(group))
        except HostRefused as error:
            log.warning("denials are counted, but not told one by one", error=str(error))
            return
        self._reader.follow(self._take, complain)

    def _take(self, packets: list[Logged]) -> None:
        assert self._reader
        lost, self._lost_before = self._reader.counts.lost - self._lost_before, self._reader.counts.lost
        if lost:
            self._lost(lost)
        for denial in self._teller.take(packets):
            fields = msgspec.to_builtins(denial)
            log.info("denied", at=fields.pop("time"), **fields)
            with self._lock:
                self._of_late.append(denial)
                for follower in self._followers:
                    with suppress(Full):
                        follower.put_nowait(denial)

    def tell(self, follow: bool) -> Iterator[Denial | None]:
        """Those of late; then, with `follow`, new ones as they come, and None now and then while there are none."""
        follower: Queue[Denial] = Queue(_BACKLOG)
        with self._lock:
            of_late = [*self._of_late]
            if follow:
                self._followers.add(follower)
        try:
            yield from of_late
            while follow:
                try:
                    yield follower.get(timeout=_PAUSE)
                except Empty:
                    yield None
        finally:
            with self._lock:
                self._followers.discard(follower)


def _interface(index: int) -> str:
    """Its number where it is gone already."""
    with suppress(OSError):
        return if_indextoname(index)
    return str(index)
