"""The answer of `podfence rehearse`: the connections that proposed policies would cut, and what audit has counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from compiler.allowset import PolicyRef
    from compiler.verdict import End
    from enforcer.connections.rehearsal import Cut
    from enforcer.readback.status import Denied


class By(Struct, frozen=True, omit_defaults=True):
    """A policy that isolates the pod of one end, and has no rule that admits the connection."""

    direction: str
    policy: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.direction}: {self.policy}{f' ({self.file}:{self.line})' if self.file else ''}"


class Connection(Struct, frozen=True, omit_defaults=True):
    """`count` connections in the table with these ends. A source port is not told: it is the client's choice."""

    src: str
    src_address: str
    dst: str
    dst_address: str
    protocol: str
    port: int
    count: int
    by: list[By] = []
    gone: list[str] = []

    def __str__(self) -> str:
        port = f"{self.port}/{self.protocol}" if self.port else self.protocol
        ends = [f"{n} ({a})" if n else a for n, a in ((self.src, self.src_address), (self.dst, self.dst_address))]
        return f"{self.count:>5}  {ends[0]} -> {ends[1]}, {port}"


class Audited(Struct, frozen=True):
    """Packets to (ingress) or from (egress) a pod that the policies in force deny, and that audit has let pass since
    the pod's rules were made."""

    pod: str
    address: str
    direction: str
    packets: int

    def __str__(self) -> str:
        return f"{self.packets:>5}  {self.direction} of {self.pod} ({self.address})"


class Rehearsed(Struct, frozen=True):
    """Of one node. `first_sync`: nothing of podfence is on it yet, and a node's first sync ends no connection."""

    cut: int
    first_sync: bool
    connections: list[Connection]
    audited: list[Audited] = []

    @property
    def summary(self) -> str:
        if not self.cut:
            return "cuts no connection that is in the table now"
        return f"cuts {self.cut} connection{'s' if self.cut > 1 else ''} in the table now:"


def rehearsed(cuts: list[Cut], first_sync: bool, audited: list[Audited]) -> Rehearsed:
    return Rehearsed(sum(cut.count for cut in cuts), first_sync, list(map(_connection, cuts)), audited)


def audited_of(denied: Denied) -> Audited:
    return Audited(denied.pod, denied.address, denied.direction, denied.packets)


def lines(answer: Rehearsed) -> Iterator[str]:
    yield answer.summary
    for each in answer.connections:
        yield str(each)
        yield from (f"         {by}" for by in each.by)
        yield from (f"         {address}: its pod is gone" for address in each.gone)
    if answer.first_sync and answer.cut:
        yield "podfence is not on this host yet, and a node's first sync ends none: these go on, until they begin anew"
    elif answer.first_sync:
        yield "podfence is not on this host yet: where nothing tracks connections, the table is empty"
    if answer.audited:
        yield "packets that audit has let pass, and that the policies in force deny:"
        yield from map(str, answer.audited)


def _connection(cut: Cut) -> Connection:
    by = [_by(direction, ref) for direction, refs in (("egress", cut.egress), ("ingress", cut.ingress)) for ref in refs]
    gone = [str(address) for address in cut.gone]
    return Connection(*_shown(cut.src), *_shown(cut.dst), cut.protocol, cut.port, cut.count, by, gone)


def _shown(end: End) -> tuple[str, str]:
    return end.pod.key if end.pod else f"node/{end.node}" if end.node else "", str(end.address)


def _by(direction: str, ref: PolicyRef) -> By:
    return By(direction, ref.policy, *((ref.source.file, ref.source.line) if ref.source else ("", 0)))
