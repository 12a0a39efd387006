"""The listening ends of a lab: each answers with the name of its place, so that a probe knows who it reached."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache, partial

from lab import netns, probe, sctp
from lab.topology import Host, Listen
from policy.cidr import Address
from policy.errors import HostRefused

Handler = Callable[[], None]
_BACKLOG = 4096
_DATAGRAM = 2048


@cache
def kernel_sctp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


class RawSctp:
    """One address that speaks SCTP without the kernel: it answers INITs, and hands other answers on."""

    def __init__(self, host: Host, address: Address) -> None:
        self.socket = _bound(address, socket.SOCK_RAW, socket.IPPROTO_SCTP, 0)
        probe.ask_for_errors(self.socket, address.family)
        self.family = address.family
        self.waiting: dict[int, Callable[[probe.Outcome, str], None]] = {}
        self._place = host.place.encode()
        self._ports = {port for protocol, port in host.listens if protocol == "SCTP"}

    def free_port(self) -> int:
        """A random one, so that conntrack doesn't remember it."""
        while (port := random.randrange(32768, 61000)) in self.waiting:
            pass
        return port

    def send(self, message: sctp.Message, target: str) -> None:
        """OSError where the packet doesn't leave. An error of an earlier one, which the kernel reports at the next
        call whatever that is, goes to whom it belongs."""
        try:
            self.socket.sendto(message.encode(), (target, 0))
        except OSError:
            self._read_errors()
            self.socket.sendto(message.encode(), (target, 0))

    def readable(self) -> None:
        self._read_errors()
        while True:
            try:
                packet, sender = self.socket.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # the error queue has it too
            header = (packet[0] & 15) * 4 if self.family == 4 else 0
            if (message := sctp.decode(packet[header:])) is not None:
                self._receive(message, sender[0])

    def _read_errors(self) -> None:
        while (error := probe.read_error(self.socket, self.family)) is not None:
            outcome, quoted = error
            self._settle(sctp.ports(quoted)[0], outcome, "")

    def _receive(self, message: sctp.Message, sender: str) -> None:
        if message.kind == sctp.INIT:
            if message.dst_port in self._ports:
                answer = message.answer(sctp.INIT_ACK, random.randrange(1, 1 << 32), self._place)
            else:
                answer = message.answer(sctp.ABORT)
            with suppress(OSError):
                self.send(answer, sender)
        elif message.kind == sctp.INIT_ACK:
            self._settle(message.dst_port, probe.Outcome.OPEN, message.cookie.decode())
        else:
            self._settle(message.dst_port, probe.Outcome.REFUSED, "")

    def _settle(self, port: int, outcome: probe.Outcome, answered_by: str) -> None:
        if port in self.waiting:
            self.waiting[port](outcome, answered_by)


class Servers:
    """Every listening socket of one host, made inside its namespace. `handlers` say what to do with which socket."""

    def __init__(self, host: Host) -> None:
        self.handlers: list[tuple[socket.socket, Handler]] = []
        self.raw: dict[Address, RawSctp] = {}
        self._place = host.place.encode()
        try:
            with netns.inside(host.netns):
                for address in host.addresses:
                    self._listen(host.listens, address)
                    if not kernel_sctp():
                        self.raw[address] = RawSctp(host, address)
                        self.handlers.append((self.raw[address].socket, self.raw[address].readable))
        except BaseException:
            self.close()
            raise

    def _listen(self, listens: Iterable[Listen], address: Address) -> None:
        for protocol, port in sorted(listens):
            if protocol == "UDP":
                sock = _bound(address, socket.SOCK_DGRAM, socket.IPPROTO_UDP, port)
                self.handlers.append((sock, partial(self._echo, sock)))
            elif protocol == "TCP" or kernel_sctp():
                number = socket.IPPROTO_TCP if protocol == "TCP" else socket.IPPROTO_SCTP
                sock = _bound(address, socket.SOCK_STREAM, number, port)
                sock.listen(_BACKLOG)
                self.handlers.append((sock, partial(self._accept, sock)))

    def _accept(self, sock: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                with suppress(ConnectionError):
                    connection, _peer = sock.accept()
                    with connection, suppress(OSError):
                        connection.send(self._place)

    def _echo(self, sock: socket.socket) -> None:
        with suppress(BlockingIOError):
            while True:
                nonce, sender = sock.recvfrom(_DATAGRAM)
                with suppress(OSError):
                    sock.sendto(nonce + self._place, sender)

    def close(self) -> None:
        for sock, _handler in self.handlers:
            sock.close()
        self.handlers.clear()


def _bound(address: Address, kind: int, protocol: int, port: int) -> socket.socket:
    sock = socket.socket(probe.AF[address.family], kind | socket.SOCK_NONBLOCK, protocol)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
    except OSError as error:
        sock.close()
        raise HostRefused(f"the lab can't listen at {address}, port {port}: {error.strerror}") from None
    return sock
