"""`podfence node probe`: one real packet from the source's own network namespace, and the rule that took it."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from compiler.verdict import Flow
from enforcer.readback.status import installed_mode
from enforcer.readback.why import Matched, counted_walk
from enforcer.rules.plan import Actual
from podfence.answers import StepOut
from podfence.asking import Asking, read_port
from podfence.ends import Ends
from podfence.hops import hops, wanted
from podfence.live import Here, steps
from podfence.output import Form, line, show
from podfence.sources import Sources
from policy.cidr import Address
from policy.errors import HostRefused, UsageError
from policy.model import Pod

if TYPE_CHECKING:
    from lab.probe import Outcome

_QUIET = 0.02
_PASSED = ("open", "refused")


class Probed(Struct, frozen=True):
    """`outcome` is open, refused (by the destination, so it passed), rejected (by a firewall), dropped or unreachable.
    `took` are the rules of podfence's that counted it, in its order, the last one having decided; `node` is where.
    `agrees`: it is as the objects say; None where silence does not tell."""

    src: str
    dst: str
    protocol: str
    port: int
    outcome: str
    milliseconds: float
    wanted: str
    agrees: bool | None
    node: str
    took: list[StepOut]


def probe(
    sources: Sources, src: str, dst: str, port_text: str, lab: str | None, node: str | None, timeout: float, form: Form
) -> int:
    """Sends it. Ends with 1 where the packet's fate is not what the objects say."""
    compiled = sources.compiled().compiled
    asking = Asking(compiled, Ends(compiled, sources.namespace))
    source, target, port = asking.ends.find(src), asking.ends.find(dst), read_port(port_text)
    if port.number is None:
        raise UsageError("a probe needs --port")
    here = Here(asking, lab, node)
    for flow in asking.flows(source, target, port):
        pod = flow.src.pod
        if pod is None or not flow.src.address or not flow.dst.address:
            raise UsageError(f"{src} -> {dst}: a probe goes from a pod with an address to an address")
        probed = _send(asking, here, flow, pod, timeout)
        show(form, probed, lambda: ())
        if form == "text":
            _print(probed)
        return 1 if probed.agrees is False else 0
    raise UsageError(f"{src} and {dst} have no address family in common")


def _send(asking: Asking, here: Here, flow: Flow, pod: Pod, timeout: float) -> Probed:
    assert flow.src.address and flow.dst.address
    family = flow.dst.address.family
    seen = [hop for hop in hops(flow) if here.can_read(hop.node)]
    if not any(hop.arrives for hop in seen):
        raise UsageError(f"{pod.key} is on node {pod.node or '(none)'}, not on {here.name}")
    namespace = _namespace(here, pod)
    before = {hop.node: here.read(hop.node, family) for hop in seen}
    outcome, seconds = send_one(namespace, flow, timeout)
    after = {hop.node: here.read(hop.node, family) for hop in seen}
    took: list[StepOut] = []
    last = seen[0]
    for hop in seen:
        _, matched = counted_walk(after[hop.node], hop.hook, here.packet(flow, hop))
        counted = tuple(_counted_up(before[hop.node], after[hop.node], matched))
        took += steps(counted)
        last = hop if counted else last
    modes = {hop.node: installed_mode(after[hop.node]) for hop in seen}
    allowed = all(wanted(asking, flow, hop, modes.get(hop.node, "enforce")) for hop in hops(flow))
    silent = outcome.value == "dropped" and flow.protocol != "TCP"
    agrees = None if silent and allowed else (outcome.value in _PASSED) is allowed
    return Probed(
        f"{pod.key} ({flow.src.address})",
        f"{flow.dst.pod.key} ({flow.dst.address})" if flow.dst.pod else str(flow.dst.address),
        flow.protocol,
        flow.port,
        outcome.value,
        round(seconds * 1000, 1),
        "allowed" if allowed else "denied",
        agrees,
        last.node,
        took,
    )


def _counted_up(before: Actual, after: Actual, matched: tuple[Matched, ...]) -> Iterator[Matched]:
    """Those of the rules on its way that have counted since; others' packets may be among them."""
    old: dict[tuple[str, str], int] = {}
    for one in _all(before):
        old[one.chain, one.text] = one.packets
    for each in matched:
        if each.packets > old.get((each.chain, each.text), 0):
            yield each


def _all(actual: Actual) -> Iterator[Matched]:
    from enforcer.rules.parse import Foreign
    from enforcer.rules.render import rule_text

    for chain, rules in actual.tables.chains.items():
        for counted in rules:
            text = counted.rule.text if isinstance(counted.rule, Foreign) else rule_text(counted.rule)
            yield Matched(chain, text, counted.packets)


def _print(probed: Probed) -> None:
    service = probed.protocol if probed.protocol == "ICMP" else f"{probed.port}/{probed.protocol}"
    means = {"refused": "refused by the destination: it passed", "rejected": "rejected by a firewall"}
    colour = {True: "green", False: "red", None: "yellow"}[probed.agrees]
    outcome = means.get(probed.outcome, probed.outcome)
    line(f"{probed.src} -> {probed.dst}, {service}: {outcome}, after {probed.milliseconds} ms", fg=colour, bold=True)
    said = {True: "as the objects say", False: "NOT as the objects say", None: "silence does not tell"}[probed.agrees]
    line(f"  {said}: {probed.wanted}")
    for each in probed.took:
        line(f"    {each.packets:>8} packets  -A {each.chain} {each.rule}")
    if probed.took:
        line(f"  the last of these, on node {probed.node}, took it")
    else:
        line("  no rule of podfence's counted it: nothing of its is in force on the way, or it never came there")


def _namespace(here: Here, pod: Pod) -> str:
    """The source's network namespace, as a path or a name below /run/netns."""
    if here.lab is not None:
        return here.lab.host(pod.key).netns
    for candidate in _candidates():
        if set(pod.addresses) & _addresses_in(candidate):
            return candidate
    raise HostRefused(f"no network namespace of this host has an address of {pod.key} (are you root on its node?)")


def _candidates() -> Iterator[str]:
    """Every network namespace of this host but its own, once: named ones, then those of processes."""
    seen = {Path("/proc/self/ns/net").stat().st_ino}
    named = sorted(Path("/run/netns").glob("*")) if Path("/run/netns").is_dir() else []
    for path in [*named, *Path("/proc").glob("[0-9]*/ns/net")]:
        try:
            inode = path.stat().st_ino
        except OSError:
            continue
        if inode not in seen:
            seen.add(inode)
            yield str(path)


def _addresses_in(namespace: str) -> frozenset[Address]:
    from enforcer.attachment.links import own_addresses
    from lab.netns import inside

    try:
        with inside(namespace):
            return own_addresses((4, 6))
    except OSError:
        return frozenset()


def send_one(namespace: str, flow: Flow, timeout: float) -> tuple[Outcome, float]:
    """One new flow's first packet, and what came of it, after how many seconds."""
    from lab import netns
    from lab.probe import AF, Outcome, ask_for_errors, of_errno, read_error

    assert flow.src.address and flow.dst.address
    family = flow.dst.address.family
    kinds = {
        "TCP": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
        "UDP": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
        "SCTP": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
        "ICMP": (socket.SOCK_DGRAM, socket.IPPROTO_ICMP if family == 4 else socket.IPPROTO_ICMPV6),
    }
    with netns.inside(namespace):
        try:
            sock = socket.socket(AF[family], *kinds[flow.protocol])
        except OSError as error:
            raise HostRefused(f"no {flow.protocol} socket can be made here: {error.strerror}") from None
    with sock:
        sock.setblocking(False)
        ask_for_errors(sock, family)
        sock.bind((str(flow.src.address), 0))
        began = time.monotonic()
        stream = flow.protocol in ("TCP", "SCTP")
        number: int | None = sock.connect_ex((str(flow.dst.address), 0 if flow.protocol == "ICMP" else flow.port))
        if not stream:
            try:
                sock.send(_payload(flow.protocol, family))
            except OSError as error:
                return of_errno(error.errno or 0), time.monotonic() - began
        while (elapsed := time.monotonic() - began) < timeout:
            if explained := read_error(sock, family):
                return explained[0], elapsed
            readable, writable, _ = select.select([sock], [sock] if stream else [], [], _QUIET)
            if readable or writable:
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                explained = read_error(sock, family)
                if explained or number:
                    return explained[0] if explained else of_errno(number), time.monotonic() - began
                return Outcome.OPEN, time.monotonic() - began
        return Outcome.DROPPED, time.monotonic() - began


def _payload(protocol: str, family: int) -> bytes:
    nonce = random.randbytes(8)
    return struct.pack("!BBHHH", 8 if family == 4 else 128, 0, 0, 0, 1) + nonce if protocol == "ICMP" else nonce
