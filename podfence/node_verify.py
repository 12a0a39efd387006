"""`podfence node verify`: what is installed against what is wanted, and how the answer reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from msgspec import Struct

from compiler.compile import Compiled
from enforcer.keeping.host import read
from enforcer.kernel.backend import Backend
from enforcer.kernel.drift import Watch
from enforcer.readback.simulate import PORT_PROTOCOLS, Packet
from enforcer.readback.verify import Difference, verify
from enforcer.readback.why import installed_walk, reasons
from enforcer.rules.layout import NodeView
from enforcer.rules.plan import Actual
from podfence.output import Form, line, show
from policy.cidr import Address, Family

POLL_SECONDS = 0.1
_CONNECTION = {
    "NEW": "the first of a connection",
    "ESTABLISHED": "of an open connection",
    "RELATED": "about an open connection",
    "INVALID": "of no connection that is known",
    "UNTRACKED": "of no connection that is tracked",
}


class ShownPacket(Struct, frozen=True):
    """A packet for people. `hook` is the built-in chain that it passes; `port` is None where its protocol has none."""

    hook: str
    src: str
    dst: str
    protocol: str
    port: int | None
    in_interface: str
    out_interface: str
    connection: str


class Finding(Struct, frozen=True):
    """One family's answer. Where nothing is proven: a packet, how it is treated and by which rules, how it should be
    treated and why. `installed` is "unknown" where the packet meets what can't be judged, which `unknown` names."""

    family: Family
    proven_equal: bool
    packet: ShownPacket | None = None
    installed: str = ""
    rules: tuple[str, ...] = ()
    wanted: str = ""
    why: tuple[str, ...] = ()
    unknown: str = ""


def verify_node(compiled: Compiled, view: NodeView, backend: Backend, form: Form, follow: bool) -> int:
    """Prints the answer; the exit code. With `follow` it never returns: it answers again whenever something changes."""
    if not follow:
        return _answer(compiled, view, backend, form)
    with Watch(backend) as watch:
        while True:
            _answer(compiled, view, backend, form)
            sys.stdout.flush()
            while not watch.changed():
                time.sleep(POLL_SECONDS)


def _answer(compiled: Compiled, view: NodeView, backend: Backend, form: Form) -> int:
    found = [_finding(family, compiled, view, backend) for family in backend.families]
    equal = all(finding.proven_equal for finding in found)
    show(form, {"backend": backend.mode, "proven_equal": equal, "families": found}, lambda: ())
    if form == "text":
        for finding in found:
            head, *details = _lines(finding)
            line(f"IPv{finding.family}, iptables-{backend.mode}: {head}", fg="green" if finding.proven_equal else "red")
            for text in details:
                line(f"  {text}")
    return 0 if equal else 1


def _lines(finding: Finding) -> Iterator[str]:
    packet = finding.packet
    if packet is None:
        yield "proven equal: every packet is treated as the policies say"
        return
    yield "not proven: a packet meets what can't be judged" if finding.unknown else "differs"
    service = packet.protocol if packet.port is None else f"{packet.protocol} {packet.port}"
    leaves = f", out by {packet.out_interface}" if packet.out_interface else ""
    yield f"packet:    {packet.src} -> {packet.dst} {service}, {packet.connection}"
    yield f"           in {packet.hook}, in by {packet.in_interface}{leaves}"
    yield f"installed: {finding.unknown or finding.installed}"
    yield from (f"           {rule}" for rule in finding.rules)
    yield f"wanted:    {finding.wanted}"
    yield from (f"           {why}" for why in finding.why)


def _finding(family: Family, compiled: Compiled, view: NodeView, backend: Backend) -> Finding:
    actual = read(backend, family)
    difference = verify(actual, compiled, view)
    if difference:
        # Chains and sets are read one after the other: a change in between must not be taken for a difference.
        actual = read(backend, family)
        difference = verify(actual, compiled, view)
    return _explained(difference, actual, compiled, view) if difference else Finding(family, True)


def _explained(difference: Difference, actual: Actual, compiled: Compiled, view: NodeView) -> Finding:
    packet = difference.packet
    installed, rules = "unknown", tuple[str, ...]()
    if not difference.unknown:
        installed, rules = installed_walk(actual, difference.hook, packet)
    said = reasons(compiled, view, difference.hook, packet) if not difference.settled else ()
    why = tuple(f"{reason.direction} {'allowed' if reason.allowed else 'denied'}: {reason.text}" for reason in said)
    return Finding(
        actual.family,
        False,
        _shown(difference, compiled, view),
        installed,
        rules,
        difference.wanted,
        why or (difference.settled,),
        difference.unknown,
    )


def _shown(difference: Difference, compiled: Compiled, view: NodeView) -> ShownPacket:
    packet: Packet = difference.packet
    revoked = ", which is revoked" if packet.mark & view.mark else ""
    coming_back = ", coming back" if packet.ct_direction == "REPLY" else ""
    return ShownPacket(
        difference.hook,
        _end(packet.src, compiled),
        _end(packet.dst, compiled),
        packet.protocol.upper() if not packet.protocol.isdigit() else f"protocol {packet.protocol}",
        packet.port if packet.protocol in PORT_PROTOCOLS else None,
        _interface(packet.in_interface, packet.in_port),
        _interface(packet.out_interface, packet.out_port),
        _CONNECTION[packet.state] + revoked + coming_back,
    )


def _interface(name: str, port: str) -> str:
    return f"{name}, port {port}" if port else name


def _end(address: Address, compiled: Compiled) -> str:
    pod = compiled.pod_at(address)
    return f"{address} ({pod.key})" if pod else str(address)
