"""Probes that never stop: one thread sends at a steady rate, one sees what arrives, one has it judged."""

from __future__ import annotations

import selectors
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

from tests.soak.judge import Judge, Kind, Sent
from tests.soak.open_flows import OpenFlow, OpenFlows
from tests.soak.packets import PROTOCOLS, Asked, build, datagram, number_in, source_port
from tests.soak.station import Station

PORTS = (1, 53, 80, 81, 8080, 8081, 65535)
POOL = 240
PATIENCE = 1.5  # seconds after which a probe that has not arrived never will
ON_ITS_WAY = 0.05  # for so long after it was sent may a packet that never arrives meet rules
_BATCH, _OF_OPEN_FLOWS = 20, 4
_PER_POD = 10


class Probes:
    """`stations` are the places that probes go between. `add` and `remove` come from the thread that churns."""

    def __init__(self, judge: Judge, rng: Random, rate: float) -> None:
        self.judge = judge
        self.sent = 0
        self.late = 0.0  # how far behind its rate the sender is, in seconds
        self.failures: list[str] = []
        self._rng = rng
        self._rate = rate
        self._stations: dict[str, Station] = {}
        self._pool: list[Asked] = []
        self._turns: Counter[Asked] = Counter()
        self._open = OpenFlows(rng)
        self._lock = threading.Lock()  # of stations, pool and selector
        self._selector = selectors.DefaultSelector()
        self._arrived: dict[int, float] = {}
        self._waiting: deque[Sent] = deque()
        self._stop, self._drained = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=self._guarded, args=[each]) for each in (self._send, self._see)]
        self._judging = threading.Thread(target=self._guarded, args=[self._judge_all])

    def start(self) -> None:
        for each in (*self._threads, self._judging):
            each.start()

    def stop(self) -> None:
        """Returns once everything that was sent is judged."""
        self._stop.set()
        for each in (*self._threads, self._judging):
            each.join()
        for station in self._stations.values():
            station.close()
        self._selector.close()

    def add(self, station: Station, inherited: Sequence[OpenFlow] = ()) -> None:
        """`inherited` are open flows of the pod that had its addresses before."""
        with self._lock:
            self._stations[station.place] = station
            for (family, protocol), sock in station.sockets.items():
                self._selector.register(sock, selectors.EVENT_READ, (station, family, protocol))
            for _ in range(_PER_POD if "/" in station.place else 0):
                if asked := self._draw(station):
                    self._pool.append(asked)
            still = [flow for flow in inherited if not {flow.asked.src, flow.asked.dst}.isdisjoint(self._stations)]
            self._open.inherit(still, station.place, [*station.addresses.values()], time.monotonic())

    def remove(self, place: str) -> list[OpenFlow]:
        """Nothing is sent to or by the place any more; what was sent has arrived when this returns. Which of its flows
        were open then."""
        with self._lock:
            self._pool = [each for each in self._pool if place not in (each.src, each.dst)]
            left = self._open.leave(place)
            station = self._stations.pop(place)
        time.sleep(ON_ITS_WAY)
        with self._lock:
            for (family, protocol), sock in station.sockets.items():
                self._read(station, family, protocol)
                self._selector.unregister(sock)
        station.close()
        return left

    def _draw(self, subject: Station | None = None) -> Asked | None:
        """A flow that policies may have a say in, of `subject` where there is one."""
        pods = [each for each in self._stations.values() if "/" in each.place]
        others = [each for each in self._stations.values() if "/" not in each.place]
        if len(pods) < 2:
            return None
        one = subject or self._rng.choice(pods)
        other = self._rng.choice(pods if self._rng.random() < 0.8 else others)
        families = [family for family in one.addresses if family in other.addresses]
        if one is other or not families:
            return None
        src, dst = (one, other) if self._rng.random() < 0.5 else (other, one)
        family, protocol = self._rng.choice(families), self._rng.choices(PROTOCOLS, (5, 4, 1))[0]
        port = 0 if protocol == "ICMP" else self._rng.choice(PORTS)
        return Asked(src.place, dst.place, src.addresses[family], dst.addresses[family], protocol, port)

    def _send(self) -> None:
        began, at = time.monotonic(), 0
        while not self._stop.is_set():
            with self._lock:
                for _ in range(_BATCH):
                    if len(self._pool) < POOL and (asked := self._draw()):
                        self._pool.append(asked)
                    if not self._pool:
                        break
                    at += 1
                    self._send_one(self._pool[at % len(self._pool)])
                self._keep_open()
                # A few flows are exchanged for others with each batch.
                if len(self._pool) > POOL:
                    self._pool.pop(0)
                elif self._pool and self._rng.random() < 0.3:
                    del self._pool[self._rng.randrange(len(self._pool))]
            behind = began + self.sent / self._rate - time.monotonic()
            if behind < -1:  # never in a burst: a machine that stood still is not made up for
                began -= behind
                self.late -= behind
            time.sleep(max(0.0005, behind))

    def _keep_open(self) -> None:
        """A packet in each of some open flows."""
        if self._open.few and (asked := self._draw()):
            self._open.open(asked)
        for flow in self._open.due(_OF_OPEN_FLOWS):
            if flow.backwards:
                self._send_in(flow, "unasked")
            else:
                self._open.answers[self._send_in(flow, "open")] = flow

    def _send_one(self, asked: Asked) -> None:
        turn = self._turns[asked] = self._turns[asked] + 1
        self._give(asked, build(asked, self.sent + 1, turn), source_port(turn))

    def _send_in(self, flow: OpenFlow, kind: Kind) -> int:
        """The number of the packet. Only an `open` one goes the flow's own way."""
        ports = (flow.port, flow.asked.port) if kind == "open" else (flow.asked.port, flow.port)
        back = None if kind == "open" else flow.way_back
        return self._give(
            flow.asked, datagram(*ports, self.sent + 1), flow.port, kind=kind, back=back, inherited=flow.inherited
        )

    def _give(self, asked: Asked, data: bytes, port: int, **more: Any) -> int:
        """Sends `data`, which holds the number that this returns. `more` of what was `Sent`."""
        number = self.sent = self.sent + 1
        way = more.get("back") or asked
        began = time.monotonic()
        try:
            self._stations[way.src].sockets[way.family, way.protocol].sendto(data, (way.dst_address, 0))
        except OSError as error:
            self.failures.append(f"probe {number}, {way}: {error}")
            return number
        self._waiting.append(Sent(number, asked, began, time.monotonic() + ON_ITS_WAY, port, **more))
        return number

    def _see(self) -> None:
        while not self._drained.is_set():
            ready = self._selector.select(0.1)
            with self._lock:
                for key, _ in ready:
                    self._read(*key.data)

    def _read(self, station: Station, family: int, protocol: str) -> None:
        with suppress(BlockingIOError, OSError):
            while True:
                data = station.sockets[family, protocol].recv(256)
                if (number := number_in(protocol, family, data)) is not None:
                    self._arrived[number] = time.monotonic()
                    flow = self._open.answers.pop(number, None)
                    if flow and flow.asked.src in self._stations and flow.asked.dst in self._stations:
                        self._send_in(flow, "answer")

    def _judge_all(self) -> None:
        while not (self._stop.is_set() and not self._waiting):
            now = time.monotonic()
            while self._waiting and self._waiting[0].ended + PATIENCE < now:
                sent = self._waiting.popleft()
                arrived = self._arrived.pop(sent.number, None)
                self._open.answers.pop(sent.number, None)
                if arrived is not None:
                    sent = replace(sent, ended=max(arrived, sent.began))
                self.judge.judge(sent, arrived is not None)
            time.sleep(0.02)
        self._drained.set()

    def _guarded(self, run: object) -> None:
        try:
            run()  # type: ignore[operator]
        except BaseException:
            self.failures.append(traceback.format_exc())
            self._stop.set()
            self._drained.set()
