"""Packets from and to network namespaces of a cluster: single connections, and streams of new flows.

Sockets are made by threads that have hopped into a pod's or node's network namespace. Nothing in the pod takes part, so
a pod that only sleeps can be a sender or receiver.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self, TypeVar

Made = TypeVar("Made")
Outcome = Literal["open", "denied", "refused"]
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
# Of a sender's ports: nobody listens there, and the kernel has forgotten a flow when its port comes around.
_PORTS = range(10_000, 60_000)
_STAMP = 8
_SO_RCVBUFFORCE = 33


def enter(netns: Path) -> None:
    """The current thread is in this network namespace from now on; for threads that end there."""
    handle = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {netns}")
    finally:
        os.close(handle)


def within(netns: Path, make: Callable[[], Made]) -> Made:
    """What `make` returns in this network namespace: sockets stay there."""

    def hopped() -> Made:
        enter(netns)
        return make()

    # A thread of its own, which ends: no other work is ever done in there.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(hopped).result()


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def outcome(netns: Path, address: str, port: int = 8080, patience: float = 1.0) -> Outcome:
    """Of one TCP connection: silence and a firewall's refusal are `denied`, a port that nobody serves is `refused`."""

    def attempt() -> Outcome:
        with socket.socket(family_of(address), socket.SOCK_STREAM) as sock:
            sock.settimeout(patience)
            try:
                sock.connect((address, port))
            except TimeoutError:
                return "denied"
            except ConnectionRefusedError:
                return "refused"
            except OSError as error:
                if error.errno not in (errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.ENETUNREACH):
                    raise
                return "denied"
        return "open"

    return within(netns, attempt)


class Receiver:
    """Keeps what arrives at a UDP port of a namespace, with when and from whom, from `__enter__` to `__exit__`."""

    def __init__(self, netns: Path, port: int, family: socket.AddressFamily = socket.AF_INET) -> None:
        def bound() -> socket.socket:
            sock = socket.socket(family, socket.SOCK_DGRAM)
            # Past net.core.rmem_max, as root may: nothing that arrived may be lost here.
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
            sock.settimeout(0.1)
            return sock

        self._socket = within(netns, bound)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self.arrived: list[tuple[str, int]] = []  # the sender's address, and the number that it sent

    def _receive(self) -> None:
        while not self._ends.is_set():
            try:
                data, sender = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            self.arrived.append((sender[0], int.from_bytes(data[:_STAMP])))

    def senders(self) -> set[str]:
        return {sender for sender, _ in self.arrived}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ends.set()
        self._thread.join()
        self._socket.close()


class Stream:
    """A new UDP flow every `interval` seconds from a namespace to an address, each with its number, from `__enter__` to
    `__exit__`. `sent` holds when, by `time.monotonic`, for each number."""

    def __init__(self, netns: Path, address: str, port: int, interval: float) -> None:
        self._netns = netns
        self._to = (address, port)
        self._interval = interval
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self.sent: list[float] = []
        self.failed = ""

    def _send(self) -> None:
        enter(self._netns)
        family, due = family_of(self._to[0]), time.monotonic()
        while not self._ends.is_set():
            number = len(self.sent)
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", _PORTS[number % len(_PORTS)]))
                self.sent.append(time.monotonic())
                try:
                    sock.sendto(number.to_bytes(_STAMP), self._to)
                except OSError as error:
                    self.failed = f"{number}: {error}"
            due += self._interval
            time.sleep(max(0.0, due - time.monotonic()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ends.set()
        self._thread.join()


class Streams:
    """Streams to one receiver, told apart by their senders' addresses. What comes of them is judged once they ended."""

    def __init__(self, receiver: Receiver, streams: dict[str, Stream]) -> None:
        self._receiver = receiver
        self._streams = streams

    def lost(self, sender: str) -> list[int]:
        """The numbers that were sent from this address and did not arrive."""
        there = {number for address, number in self._receiver.arrived if address == sender}
        return [number for number in range(len(self._streams[sender].sent)) if number not in there]

    def arrived(self, sender: str) -> int:
        return sum(address == sender for address, _ in self._receiver.arrived)

    def sent(self, sender: str) -> int:
        return len(self._streams[sender].sent)

    def passed(self, sender: str) -> list[float]:
        """When those were sent that arrived, by `time.monotonic`."""
        times = self._streams[sender].sent
        return sorted(times[number] for address, number in self._receiver.arrived if address == sender)


@contextmanager
def streams(
    senders: dict[str, Path], receiver: Path, address: str, port: int = 9000, interval: float = 0.002
) -> Iterator[Streams]:
    """A stream from each sender (its address, its namespace) to `address` in the namespace `receiver`, while the block
    lasts."""
    with Receiver(receiver, port, family_of(address)) as kept:
        each = {sender: Stream(netns, address, port, interval) for sender, netns in senders.items()}
        started: list[Stream] = []
        try:
            for stream in each.values():
                started.append(stream.__enter__())
            yield Streams(kept, each)
        finally:
            for stream in started:
                stream.__exit__()
            time.sleep(0.3)  # the last packets, on a busy machine


def all_outcomes(asked: Sequence[tuple[Path, str, int]]) -> list[Outcome]:
    """Of many connections at once."""
    with ThreadPoolExecutor(max_workers=len(asked) or 1) as pool:
        return list(pool.map(lambda each: outcome(*each), asked))
