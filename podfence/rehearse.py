"""`podfence rehearse`: the connections of this node that proposed policies would cut, before anything is applied."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from podfence.node_options import NodeOptions, compile_files, node_options, view_of
from podfence.options import files_option, format_option, recursive_option
from podfence.output import Form, line, show

if TYPE_CHECKING:
    from compiler.allowset import PolicyRef
    from compiler.verdict import End
    from enforcer.rehearsal import Cut


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


class Rehearsed(Struct, frozen=True):
    """`first_sync`: nothing of podfence is on this host yet, and a node's first sync ends no connection."""

    cut: int
    first_sync: bool
    connections: list[Connection]


@click.command("rehearse")
@files_option
@recursive_option
@node_options
@click.option("--exit-code", is_flag=True, help="End with 1 where a connection would be cut.")
@format_option
def command(paths: tuple[str, ...], recursive: bool, options: NodeOptions, exit_code: bool, form: Form) -> int:
    """Show which connections of this node the policies in the files would cut. Changes nothing.

    \b
    The files hold what would be applied: pods, namespaces and the proposed policies.
    Read is the kernel's connection table, so UDP and connections that just closed are in it too.
    Those that podfence has ended already are not told again.
    """
    from enforcer import conntrack
    from enforcer.backend import detect
    from enforcer.flows import known_addresses
    from enforcer.host import read
    from enforcer.layout import local_pods
    from enforcer.links import own_addresses
    from enforcer.rehearsal import cuts
    from enforcer.revocation import Judge
    from policy.cidr import BITS

    compiled = compile_files(paths, recursive)
    backend = detect(options.backend)
    view = view_of(compiled, options)
    own = own_addresses(BITS)
    before = [read(backend, family) for family in backend.families]
    local = {address for pod in compiled.cluster.pods if pod.key in view.veths for address in pod.addresses}
    released = {address for actual in before for address in known_addresses(actual)} - local
    judge = Judge(compiled, view, local_pods(compiled, view.name), own, released)
    doomed = conntrack.doomed(judge, options.mark)
    connections = [_connection(cut) for cut in cuts(compiled, view, own, released, doomed)]
    first_sync = not any(actual.tables.chains for actual in before)
    answer = Rehearsed(len(doomed), first_sync, connections)
    show(form, answer, lambda: ())
    if form == "text":
        for text in _lines(answer):
            line(text)
    return 1 if exit_code and doomed else 0


def _lines(answer: Rehearsed) -> Iterator[str]:
    if not answer.cut:
        yield "cuts no connection that is in the table now"
        if answer.first_sync:
            yield "podfence is not on this host yet: where nothing tracks connections, the table is empty"
        return
    yield f"cuts {answer.cut} connection{'s' if answer.cut > 1 else ''} in the table now:"
    for each in answer.connections:
        yield str(each)
        yield from (f"         {by}" for by in each.by)
        yield from (f"         {address}: its pod is gone" for address in each.gone)
    if answer.first_sync:
        yield "podfence is not on this host yet, and a node's first sync ends none: these go on, until they begin anew"


def _connection(cut: Cut) -> Connection:
    by = [_by(direction, ref) for direction, refs in (("egress", cut.egress), ("ingress", cut.ingress)) for ref in refs]
    gone = [str(address) for address in cut.gone]
    return Connection(*_shown(cut.src), *_shown(cut.dst), cut.protocol, cut.port, cut.count, by, gone)


def _shown(end: End) -> tuple[str, str]:
    return end.pod.key if end.pod else f"node/{end.node}" if end.node else "", str(end.address)


def _by(direction: str, ref: PolicyRef) -> By:
    return By(direction, ref.policy, *((ref.source.file, ref.source.line) if ref.source else ("", 0)))
