"""What was denied, for people and for programs: who, by which policies, how often. Pure.

    packets that rules told of ─► named ─► repeats merged ─► limited per pod ─► lines

The first packet of its kind is told at once, those like it are counted for some seconds and told as one. The kernel has
told of some only (`base.LOGS_PER_SECOND`), so counts are at least what happened; the sets that count know them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from compiler.compile import State
from enforcer.connections.gate import Gate
from enforcer.kernel.nflog_wire import Logged, Why
from policy.cidr import Address
from policy.model import Direction

WINDOW = 5.0
# Lines a second for one pod, and how many at once.
RATE, BURST = 2.0, 20.0
# Kinds of packets whose repeats are counted, and pods whose lines are, at a time.
_MOST = 1024


class Denial(Struct, frozen=True, omit_defaults=True):
    """Packets of one kind that were denied; or, where `why` is audit, that would have been. `time` is that of the
    last, in seconds since 1970; `count` of them came in `seconds`. `direction` is None where no policy decided. Pods
    are keys, "" where no pod has the address. `policies` isolate the pod that the direction is of. A port is None where
    the packet has none; interfaces are "" where there is none: of a bridge, its port."""

    time: float
    why: Why
    src: str
    dst: str
    protocol: str
    direction: Direction | None = None
    src_pod: str = ""
    dst_pod: str = ""
    src_port: int | None = None
    port: int | None = None
    flags: str = ""
    in_interface: str = ""
    out_interface: str = ""
    policies: tuple[str, ...] = ()
    count: int = 1
    seconds: float = 0.0

    @property
    def subject(self) -> str:
        """What the lines of a denial are limited by: a pod, else the address or interface that sent it."""
        known = self.dst_pod if self.direction == "ingress" else self.src_pod
        return known or self.in_interface or self.src


class Names(Protocol):
    """What is called how, and why."""

    def pod(self, address: Address) -> str:
        """The key of the pod that has the address, "" where none has."""

    def policies(self, address: Address, direction: Direction) -> tuple[str, ...]:
        """Those that isolate the pod that has the address."""

    def interface(self, index: int) -> str:
        """Its name, "" for 0."""


class StateNames:
    """Names from what objects mean now; an index that another thread changes is asked behind its gate."""

    def __init__(self, state: State, interface: Callable[[int], str], gate: Gate | None = None) -> None:
        self._state = state
        self._interface = interface
        self._gate = gate or Gate()

    def pod(self, address: Address) -> str:
        with self._gate:
            found = self._state.pod_at(address)
        return found.key if found else ""

    def policies(self, address: Address, direction: Direction) -> tuple[str, ...]:
        with self._gate:
            found = self._state.pod_at(address)
            isolating = self._state.allow(found, direction).policies if found else ()
        return tuple(each.policy for each in isolating)

    def interface(self, index: int) -> str:
        return self._interface(index) if index else ""


def named(logged: Logged, names: Names, now: float) -> Denial:
    """`now` is the time where the kernel does not know it."""
    packet = logged.packet
    subject = packet.dst if logged.direction == "ingress" else packet.src
    return Denial(
        logged.seconds or now,
        logged.why,
        str(packet.src),
        str(packet.dst),
        packet.protocol,
        logged.direction,
        names.pod(packet.src),
        names.pod(packet.dst),
        packet.src_port,
        packet.port,
        packet.flags,
        names.interface(logged.phys_in_index or logged.in_index),
        names.interface(logged.phys_out_index or logged.out_index),
        names.policies(subject, logged.direction) if logged.direction else (),
    )


class _Repeats(Struct):
    """Those that came since the last line of their kind."""

    since: float
    last: Denial
    count: int = 0


class Teller:
    """Packets in, denials out, of which each stands for one line. In any stretch of time a pod has no more lines than
    its rate and burst allow; `withheld` counts the others. `clock` is one that is never set, which all waiting goes by;
    `now` is seconds since 1970."""

    def __init__(
        self,
        names: Names,
        clock: Callable[[], float],
        now: Callable[[], float],
        window: float = WINDOW,
        rate: float = RATE,
        burst: float = BURST,
    ) -> None:
        self._names = names
        self._clock = clock
        self._now = now
        self._window = window
        self._rate = rate
        self._burst = burst
        self._open: dict[tuple[object, ...], _Repeats] = {}
        self._tokens: dict[str, tuple[float, float]] = {}
        self.withheld = 0

    def take(self, packets: Iterable[Logged]) -> list[Denial]:
        """What is to be told now; to be called now and then without packets, so that counts that wait are told."""
        now, moment = self._clock(), self._now()
        told = self._ended(now)
        for logged in packets:
            packet = logged.packet
            kind = logged.why, logged.direction, packet.src, packet.dst, packet.protocol, packet.port
            known = self._open.get(kind)
            if known:
                known.count += 1
                known.last = replace(known.last, time=logged.seconds or moment)
                continue
            if len(self._open) >= _MOST:
                told += self._told(self._open.pop(next(iter(self._open))), now)
            denial = named(logged, self._names, moment)
            self._open[kind] = _Repeats(now, denial)
            told.append(denial)
        return [denial for denial in told if self._may(denial, now)]

    def _ended(self, now: float) -> list[Denial]:
        """In the order in which they began, so the first that has time left ends the search."""
        told: list[Denial] = []
        for kind, known in [*self._open.items()]:
            if now - known.since < self._window:
                break
            del self._open[kind]
            if known.count:
                told += self._told(known, now)
                # What goes on is told as counts.
                self._open[kind] = _Repeats(now, known.last)
        return told

    def _told(self, known: _Repeats, now: float) -> list[Denial]:
        seconds = round(now - known.since, 1)
        return [replace(known.last, count=known.count, seconds=seconds)] if known.count else []

    def _may(self, denial: Denial, now: float) -> bool:
        if denial.subject not in self._tokens and len(self._tokens) >= _MOST:
            # Whoever said nothing for long has all of its tokens again.
            del self._tokens[min(self._tokens, key=lambda subject: self._tokens[subject][1])]
        tokens, at = self._tokens.get(denial.subject, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate)
        may = tokens >= 1
        self._tokens[denial.subject] = tokens - may, now
        self.withheld += denial.count * (not may)
        return may


def encoded(denial: Denial) -> bytes:
    """As one line of JSON."""
    return msgspec.json.encode(denial) + b"\n"


def decoded(lines: BinaryIO) -> Iterator[Denial]:
    """What `encoded` wrote, until the stream ends; a line that is none, empty or not ours, is left out."""
    decode = msgspec.json.Decoder(Denial).decode
    for line in lines:
        try:
            yield decode(line)
        except msgspec.MsgspecError:
            continue


def sentence(denial: Denial) -> str:
    """For people: one line."""
    at = datetime.fromtimestamp(denial.time, UTC).astimezone().strftime("%H:%M:%S")
    what = " ".join(filter(None, (denial.why, denial.direction)))
    port = "" if denial.port is None else str(denial.port)
    service = " ".join(filter(None, (denial.protocol, port, denial.flags)))
    named = (("in", denial.in_interface), ("out", denial.out_interface))
    ways = " ".join(f"{way} {name}" for way, name in named if name)
    why = f"; isolated by {', '.join(denial.policies)}" if denial.policies else ""
    often = f"; x{denial.count} in {denial.seconds:g} s" if denial.seconds else ""
    known = ((denial.src_pod, denial.src), (denial.dst_pod, denial.dst))
    ends = " -> ".join(f"{pod} ({address})" if pod else address for pod, address in known)
    return f"{at} {what}: {ends} {service}{f' ({ways})' if ways else ''}{why}{often}"
