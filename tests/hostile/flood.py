"""A pod that floods: frames at a steady rate from a process and a core of its own; and a TCP stream beside it."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from benchmarks.frames import Batch, Flow, Sender
from tests.hostile.attack import ALLOWED, ATTACKER, FRIEND, GATEWAY, VICTIM, Attacked

A_BATCH = 500
_CORES = sorted(os.sched_getaffinity(0))
FLOODS, STREAMS = _CORES[0], _CORES[-1]


class Flood:
    """`sent` frames so far, and the `cost` of each in nanoseconds of the sender's core, with all that rules did to it:
    on a veth the whole way of a frame is walked in its sender's time."""

    def __init__(self, counter: mmap.mmap) -> None:
        self._counter = counter

    @property
    def sent(self) -> int:
        return int(struct.unpack_from("=q", self._counter)[0])

    @property
    def cost(self) -> float:
        return float(struct.unpack_from("=q", self._counter, 8)[0] / max(1, self.sent))


@contextmanager
def flood(
    world: Attacked, flows: Sequence[Flow], rate: int, mac: str = GATEWAY, core: int = FLOODS, first: bool = False
) -> Iterator[Flood]:
    """`flows` again and again, `rate` a second where the core can. `first`: before all else that wants the core."""
    counter = mmap.mmap(-1, 16)
    child = os.fork()
    if not child:
        try:
            os.sched_setaffinity(0, {core})
            with world.lab.inside(ATTACKER):
                sender = Sender("eth0")
            batches = [Batch(mac, flows[at : at + A_BATCH]) for at in range(0, len(flows), A_BATCH)]
            if first:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            began, sent, spent = time.monotonic(), 0, 0
            while os.getppid() != 1:
                for batch in batches:
                    spent += batch.send(sender)
                    sent += batch.count
                    struct.pack_into("=qq", counter, 0, sent, spent)
                    time.sleep(max(0.0, began + sent / rate - time.monotonic()))
        finally:
            os._exit(1)
    try:
        yield Flood(counter)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class Stream:
    """A TCP connection from the friend to the victim, both ends moved by one thread: what it carries a second is what
    the way between them costs."""

    def __init__(self, world: Attacked) -> None:
        address = world.address(VICTIM), ALLOWED
        with world.lab.inside(VICTIM):
            server = socket.create_server(address)
        with server:
            with world.lab.inside(FRIEND):
                self._client = socket.create_connection(address, 5)
            self._server, _ = server.accept()
        self._client.setblocking(False)
        self._server.setblocking(False)

    def close(self) -> None:
        self._client.close()
        self._server.close()

    def rate(self, seconds: float) -> float:
        """Bytes for a second of its core, whatever else that core did meanwhile."""
        return self.carried(seconds)[1]

    def carried(self, seconds: float, first: bool = False) -> tuple[float, float]:
        """Bytes a second, and for a second that it had its core. `first`: before all else that wants the core."""
        data, room = bytes(1 << 16), bytearray(1 << 18)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {STREAMS})
        if first:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        try:
            began, own, carried = time.monotonic(), time.thread_time(), 0
            while time.monotonic() < began + seconds:
                with suppress(BlockingIOError):
                    self._client.send(data)
                with suppress(BlockingIOError):
                    carried += self._server.recv_into(room)
            return carried / (time.monotonic() - began), carried / (time.thread_time() - own)
        finally:
            if first:
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(0, before)
