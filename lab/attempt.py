"""One probe on its way: its first packet, and how the answer settles it."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable

from lab import probe, sctp
from lab.loop import Loop
from lab.probe import Outcome, Probe, Result
from lab.servers import RawSctp
from policy.cidr import Address, Family
from policy.errors import UsageError

_ECHO_REQUEST: dict[Family, int] = {4: 8, 6: 128}
_ICMP: dict[Family, int] = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ANSWER = 512


class Attempt:
    """In `flying`, which holds the oldest first, from its start until it settles; only the first outcome counts.
    `source` and `target` are of one family."""

    def __init__(self, asked: Probe, source: Address, target: Address) -> None:
        self.asked = asked
        self.source = source
        self.target = target
        self.started = 0.0
        self.result: Result | None = None
        self.clean: Callable[[], None] = lambda: None
        self._flying: dict[Attempt, None] = {}

    @property
    def family(self) -> Family:
        return self.target.family

    def take_off(self, flying: dict[Attempt, None]) -> None:
        self.started = time.monotonic()
        self._flying = flying
        flying[self] = None

    def settle(self, outcome: Outcome, answered_by: str = "") -> None:
        if self.result is None:
            self.result = Result(self.asked, outcome, time.monotonic() - self.started, answered_by)
            del self._flying[self]
            self.clean()

    def fail(self, sock: socket.socket, error: OSError) -> None:
        """A call on its socket failed, or would block. An ICMP error that waits on the error queue decides: one that
        comes while `connect` still holds the socket is found only there until TCP tries again, a second later."""
        explained = probe.read_error(sock, self.family)
        if explained is not None:
            self.settle(explained[0])
        elif not isinstance(error, BlockingIOError):
            self.settle(probe.of_errno(error.errno or 0))


def start_stream(attempt: Attempt, loop: Loop) -> None:
    """TCP, or SCTP where the kernel has it: open once the server has said who it is."""
    sock = _socket(attempt, loop, socket.SOCK_STREAM, getattr(socket, f"IPPROTO_{attempt.asked.protocol}"))
    # No state is left behind, neither here nor at the server.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def answered() -> None:
        try:
            attempt.settle(Outcome.OPEN, sock.recv(_ANSWER).decode())
        except OSError as error:
            attempt.fail(sock, error)

    loop.watch(sock, answered)
    try:
        sock.connect((str(attempt.target), attempt.asked.port))
    except OSError as error:
        attempt.fail(sock, error)


def start_datagram(attempt: Attempt, loop: Loop) -> None:
    """UDP, or an ICMP echo: open once its nonce comes back from the target."""
    nonce = random.randbytes(16)
    if attempt.asked.protocol == "ICMP":
        sock = _socket(attempt, loop, socket.SOCK_DGRAM, _ICMP[attempt.family])
        port, header = 0, struct.pack("!BBHHH", _ECHO_REQUEST[attempt.family], 0, 0, 0, 1)
    else:
        sock = _socket(attempt, loop, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
        port, header = attempt.asked.port, b""

    def answered() -> None:
        try:
            answer = sock.recv(_ANSWER)[len(header) :]
        except OSError as error:
            attempt.fail(sock, error)
            return
        if answer.startswith(nonce):
            attempt.settle(Outcome.OPEN, answer.removeprefix(nonce).decode())

    loop.watch(sock, answered)
    try:
        sock.connect((str(attempt.target), port))
        sock.send(header + nonce)
    except OSError as error:
        attempt.fail(sock, error)


def start_raw(attempt: Attempt, speaker: RawSctp) -> None:
    """SCTP through the raw socket that owns the source address, which tells answers apart by port."""
    port = speaker.free_port()
    speaker.waiting[port] = attempt.settle
    attempt.clean = lambda: speaker.waiting.__delitem__(port)
    message = sctp.Message(port, attempt.asked.port, 0, sctp.INIT, random.randrange(1, 1 << 32))
    try:
        speaker.send(message, str(attempt.target))
    except OSError as error:
        attempt.settle(probe.of_errno(error.errno or 0))


def _socket(attempt: Attempt, loop: Loop, kind: int, protocol: int) -> socket.socket:
    sock = socket.socket(probe.AF[attempt.family], kind | socket.SOCK_NONBLOCK, protocol)
    attempt.clean = lambda: loop.forget(sock)
    probe.ask_for_errors(sock, attempt.family)
    try:
        sock.bind((str(attempt.source), 0))
    except OSError as error:
        raise UsageError(f"{attempt.asked.src} can't send from {attempt.source}: {error.strerror}") from None
    return sock
