"""`podfence node connections`: what this host's kernel tracks, and what is needed to judge it from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import click
from msgspec import Struct

from podfence.node_options import backend_option
from podfence.options import format_option
from podfence.output import Form, line, show
from podfence.rehearsed import Audited, audited_of

if TYPE_CHECKING:
    from enforcer.kernel.backend import Mode
    from enforcer.kernel.conntrack_answer import Tracked


class Kind(Struct, frozen=True):
    """`count` connections that policies can't tell apart: by their first packets' source and where these went after
    destination NAT. `protocol` is its number; `port` is 0 where it has none."""

    src: str
    dst: str
    protocol: int
    port: int
    count: int

    def __str__(self) -> str:
        from enforcer.connections.rehearsal import protocol_name

        name = protocol_name(self.protocol)
        return f"{self.count:>5}  {self.src} -> {self.dst}, {f'{self.port}/{name}' if self.port else name}"

    def flows(self) -> Iterator[Tracked]:
        """Each of them, as the kernel would tell it."""
        from enforcer.kernel.conntrack_answer import Tracked
        from enforcer.kernel.conntrack_wire import packed
        from policy.cidr import parse_address

        src, dst = (packed(parse_address(each)) for each in (self.src, self.dst))
        flow = Tracked(src, dst, self.protocol, self.port.to_bytes(2, "big"), b"", 0)
        for _ in range(self.count):
            yield flow


class Connections(Struct, frozen=True):
    """`own` are the node's addresses, `known` those that the rules in force know as pods'; without rules it is
    `first_sync`. Connections that podfence has ended are not among the kinds."""

    first_sync: bool
    own: list[str]
    known: list[str]
    audited: list[Audited]
    kinds: list[Kind]


@click.command("connections")
@backend_option
@format_option
def connections_command(backend: Mode | Literal["auto"], form: Form) -> int:
    """Say which connections this host's kernel tracks, equal ones together, those that podfence ended left out."""
    found = connections(backend)
    show(form, found, lambda: map(str, found.kinds))
    if form == "text":
        line(f"{sum(kind.count for kind in found.kinds)} connections")
    return 0


def connections(backend: Mode | Literal["auto"]) -> Connections:
    from enforcer.attachment.links import own_addresses
    from enforcer.connections.flows import installed_marks, known_addresses
    from enforcer.connections.revocation import unpacked
    from enforcer.keeping.host import read
    from enforcer.kernel import conntrack
    from enforcer.kernel.backend import detect
    from enforcer.readback.status import status
    from enforcer.rules.view import DEFAULT_MARK
    from policy.cidr import BITS

    chosen = detect(backend)
    actual = [read(chosen, family) for family in chosen.families]
    mark = next(iter({mark for each in actual for mark in installed_marks(each)}), DEFAULT_MARK)
    counted = Counter((flow.src, flow.dst, flow.protocol, bytes(flow.port)) for flow in conntrack.unmarked(mark))
    return Connections(
        not any(each.tables.chains for each in actual),
        sorted(map(str, own_addresses(BITS))),
        sorted(str(address) for each in actual for address in known_addresses(each)),
        [audited_of(denied) for each in actual for denied in status(each).audited],
        [
            Kind(str(unpacked(src)), str(unpacked(dst)), protocol, int.from_bytes(port, "big"), count)
            for (src, dst, protocol, port), count in counted.most_common()
        ],
    )
