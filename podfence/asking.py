"""From two named ends and a port to answers: translated through Services, asked pair by pair, and those that are alike
put together."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from compiler.allowset import PolicyRef
from compiler.basis import Row, row, rows_of
from compiler.compile import Compiled
from compiler.explain import explain
from compiler.verdict import End, Flow, Half, NodeEgress
from podfence.alike import alike
from podfence.answers import Answer, RestsOn, RowOut, Side, Via, Word
from podfence.ends import Ends, Named, can_speak, one_pod
from podfence.likeness import Likeness
from podfence.notes import modes, notes_on, possible
from podfence.options import FLOW_PROTOCOLS, protocol_named
from podfence.shape import end_of, name_of, policy_place, rule_place, side_of
from policy.errors import UsageError
from policy.model import Direction, NetworkPolicy

if TYPE_CHECKING:
    from compiler.open_ports import OpenHalf
    from podfence.services import Backend, Way

_WEIGHT: dict[RestsOn, int] = {"spec": 0, "open": 1, "ours": 2}


class Port(Struct, frozen=True):
    """What `--port` says. `number` is a number, a name, or None for every port; `protocol` is "" where a name is given
    without one."""

    text: str
    protocol: str
    number: int | str | None


class _Pair(Struct, frozen=True):
    """One flow to be answered; the names are those of ends that are no pods."""

    src: End
    dst: End
    src_name: str
    dst_name: str
    protocol: str
    port: int | None
    way: Way | None = None
    notes: tuple[str, ...] = ()


def read_port(text: str) -> Port:
    """`8080`, `53/udp`, `http`, `icmp`, or "" for every port."""
    if not text:
        return Port(text, "", None)
    if text.lower() == "icmp":
        return Port(text, "ICMP", 0)
    head, slash, tail = text.partition("/")
    protocol = protocol_named(tail or "tcp", FLOW_PROTOCOLS)
    if protocol is None:
        raise UsageError(f"--port {text}: not a protocol: {tail}, expected tcp, udp or sctp")
    if not (head.isascii() and head.isdigit()):
        return Port(text, protocol if slash else "", head)
    if not (len(head) <= 5 and 1 <= int(head) <= 65535):
        raise UsageError(f"--port {text}: not a port, expected 1 to 65535")
    return Port(text, protocol, int(head))


class Asking(Struct, frozen=True):
    """One cluster, and who is who in it."""

    compiled: Compiled
    ends: Ends
    node_egress: NodeEgress = "enforce"

    @property
    def known_nodes(self) -> set[str]:
        return {*self.ends.nodes, *(pod.node for pod in self.compiled.cluster.pods if pod.node)}

    def answers(self, src: Named, dst: Named, port: Port) -> list[Answer]:
        """Alike ones together. UsageError where the two have no address family in common, or the port no meaning."""
        if src.service is not None and not src.ends:
            raise UsageError(f"{src.name} is a Service, which sends nothing: SRC is the pod or workload behind it")
        found: list[tuple[Hashable, Answer]] = []
        known: dict[Hashable, Answer] = {}
        likeness = Likeness(self.compiled)
        for pair in self._pairs(src, dst, port):
            like = (likeness.of(pair.src, pair.dst), pair.protocol, pair.port, id(pair.way), pair.notes)
            first = known.get(like)
            if first is None:
                answer = known[like] = self._answer(pair, src, dst)
            else:
                ends = (end_of(pair.src, pair.src_name, src.sort), end_of(pair.dst, pair.dst_name, dst.sort))
                answer = replace(first, src=ends[0], dst=ends[1])
            found.append((like, answer))
        if not found:
            raise UsageError(f"{src.name} and {dst.name} have no address family in common")
        return alike(found)

    def flows(self, src: Named, dst: Named, port: Port) -> Iterator[Flow]:
        """Those that are asked about, translated."""
        for pair in self._pairs(src, dst, port):
            if pair.port is not None:
                yield Flow(pair.src, pair.dst, pair.protocol, pair.port)

    def nothing_behind(self, dst: Named, port: Port) -> list[Way]:
        """The ways that end nowhere."""
        return [way for way in self._ways(dst, port) if not way.backends]

    def leads_somewhere(self, dst: Named, port: Port) -> bool:
        """Whether any way ends at something."""
        return any(way.backends for way in self._ways(dst, port))

    def _ways(self, dst: Named, port: Port) -> list[Way]:
        if dst.service is None and dst.sort != "node":
            return []
        from podfence.services import ways

        return ways(self.compiled, self.ends, dst, port.protocol or "TCP", port.number)

    def _pairs(self, src: Named, dst: Named, port: Port) -> Iterator[_Pair]:
        through = self._ways(dst, port)
        for way in through:
            for backend in way.backends:
                yield from self._through(src, dst, way, backend, port)
        if through:
            return
        sources, targets = self._spread(src, dst)
        speaking = [(one, other) for one in sources for other in targets if can_speak(one[0], other[0])]
        # A workload to itself is one of its pods to another, unless it has no other.
        apart = [pair for pair in speaking if not one_pod(pair[0][0], pair[1][0])]
        for (one, one_name), (other, other_name) in apart or speaking:
            protocol, number = _number(port, other)
            yield _Pair(one, other, one_name or src.name, other_name or dst.name, protocol, number)

    def _spread(self, src: Named, dst: Named) -> tuple[list[tuple[End, str]], list[tuple[End, str]]]:
        return self._parts(src, dst.ends, "ingress"), self._parts(dst, src.ends, "egress")

    def _parts(self, named: Named, others: Sequence[End], direction: Direction) -> list[tuple[End, str]]:
        """The ends of `named`, with what each is called where that is another name."""
        if named.block is None:
            return [(end, "") for end in named.ends]
        from podfence.blocks import spread

        return spread(self.compiled, self.ends, named, named.block, others, direction)

    def _through(self, src: Named, dst: Named, way: Way, backend: Backend, port: Port) -> Iterator[_Pair]:
        sources = self._parts(src, [backend.end], "ingress")
        number = None if port.number is None and not backend.port else backend.port
        node = dst.ends[0].node if dst.sort == "node" else ""
        for one, one_name in sources:
            for end, name, notes in self._rewritten(one, one_name or src.name, way, backend, node):
                if can_speak(end, backend.end):
                    notes = (*way.notes, *notes)
                    yield _Pair(end, backend.end, name, dst.name, backend.protocol, number, way, notes)

    def _rewritten(
        self, src: End, name: str, way: Way, backend: Backend, entry: str
    ) -> Iterator[tuple[End, str, tuple[str, ...]]]:
        """The source as the pod's node sees it. A node that takes a flow in for a Service that does not keep the source
        gives it its own address; on the pod's own node the rules come before that."""
        outside = src.pod is None and not src.node
        if not (way.rewrites_source and outside):
            note = (
                "a node port may give the flow the address of its node, which then counts at the destination (row 31)"
            )
            yield src, name, ((note,) if way.rewrites_source and entry else ())
            return
        own = backend.end.pod.node if backend.end.pod else ""
        if not entry or entry == own or not own:
            yield src, name, (("as it comes in by the pod's own node",) if own or self.ends.nodes else ())
        for node, addresses in self.ends.nodes.items():
            if node == own or (entry and node != entry):
                continue
            for address in addresses:
                note = "as it comes in by another node, which gives it its own address (row 31)"
                yield End(None, address, node), f"{name} through node/{node}", (note,)
        if not self.ends.nodes:
            text = "externalTrafficPolicy is Cluster: a node may give the flow its own address on the way, and no Node "
            yield src, name, (f"{text}object was read, so what the pod's node sees can't be known for sure",)

    def _answer(self, pair: _Pair, src: Named, dst: Named) -> Answer:
        if pair.port is None:
            return self._answer_open(pair, src, dst)
        flow = Flow(pair.src, pair.dst, pair.protocol, pair.port)
        service_port = pair.way.service_port if pair.way else 0
        found = explain(self.compiled, flow, self.node_egress, service_port)
        word: Word = "allowed" if found.verdict.allowed else "denied"
        unknown_address = pair.way is not None and not pair.way.known and pair.src.pod is not None
        if found.verdict.uncertain or (unknown_address and word == "allowed" and found.egress.half.because != "open"):
            word = "unknown"
        sides = [side for side in found.sides if word != "denied" or not side.half.allowed]
        rows = [each for side in sides for each in side.rows] + ([row(30)] if pair.way else [])
        return self._made(
            pair,
            src,
            dst,
            word,
            side_of(found.egress, name_of(pair.src, pair.src_name)),
            side_of(found.ingress, name_of(pair.dst, pair.dst_name)),
            rows,
            port=pair.port,
            protocol=pair.protocol,
        )

    def _answer_open(self, pair: _Pair, src: Named, dst: Named) -> Answer:
        from compiler.open_ports import open_ports

        found = open_ports(self.compiled, pair.src, pair.dst, self.node_egress)
        word: Word = "unknown" if found.possible != found.ports else "allowed" if found.ports else "denied"
        rows: list[Row] = []
        for half in (found.egress, found.ingress):
            flow = Flow(pair.src, pair.dst, "TCP")
            selecting = self._isolating(pair.src if half.direction == "egress" else pair.dst, half.direction)
            plain = Half(half.direction, bool(half.ports), half.because)
            rows += [] if half.because == "rule" else rows_of(plain, flow, selecting)
        ports = str(found.ports) if found.ports else ""
        egress, ingress = (
            self._open_side(half, pair, end, name_of(end, name))
            for half, end, name in ((found.egress, pair.src, pair.src_name), (found.ingress, pair.dst, pair.dst_name))
        )
        more = possible(found.possible, found.ports)
        return self._made(pair, src, dst, word, egress, ingress, rows or [row(2)], ports=ports, more=more)

    def _isolating(self, end: End, direction: Direction) -> list[NetworkPolicy]:
        selecting = self.compiled.selecting(end.pod) if end.pod else ()
        return [policy for policy in selecting if direction in policy.isolates]

    def _open_side(self, half: OpenHalf, pair: _Pair, end: End, pod: str) -> Side:
        from compiler.open_ports import granting_rules

        policies = [PolicyRef(policy.key, policy.source) for policy in self._isolating(end, half.direction)]
        sources = {policy.policy: policy for policy in policies}
        rules = []
        granting = granting_rules(self.compiled, pair.src, pair.dst, half.direction) if half.because == "rule" else []
        for ref, ports in granting:
            place = rule_place(ref, sources[ref.policy])
            place.ports = str(ports)
            rules.append(place)
        return Side(
            pod, bool(half.ports), half.because, rules, list(map(policy_place, policies)), ports=str(half.ports)
        )

    def _made(
        self,
        pair: _Pair,
        src: Named,
        dst: Named,
        word: Word,
        egress: Side,
        ingress: Side,
        rows: list[Row],
        ports: str | None = None,
        protocol: str = "",
        port: int = 0,
        more: Iterable[str] = (),
    ) -> Answer:
        known = sorted(set(rows))
        sides = ((egress, pair.src), (ingress, pair.dst))
        denied = dict.fromkeys(end.pod.namespace for side, end in sides if end.pod and not side.allowed)
        return Answer(
            end_of(pair.src, pair.src_name, src.sort),
            end_of(pair.dst, pair.dst_name, dst.sort),
            word,
            egress,
            ingress,
            max((each.source for each in known), key=_WEIGHT.__getitem__, default="spec"),
            [RowOut(each.number, each.source, each.text) for each in known],
            protocol,
            port,
            ports,
            Via(pair.way.asked, pair.way.leads_to) if pair.way else None,
            [*pair.notes, *more, *notes_on(pair.src, pair.dst), *modes(denied, self.compiled.namespaces)],
        )


def _number(port: Port, dst: End) -> tuple[str, int | None]:
    """Protocol and number; a name is looked up at the destination pod."""
    if not isinstance(port.number, str):
        return port.protocol, port.number
    declared = dst.pod.ports if dst.pod else ()
    for each in declared:
        if each.name == port.number and (not port.protocol or each.protocol == port.protocol):
            return each.protocol, each.port
    names = ", ".join(f"{each.name} ({each.port}/{each.protocol})" for each in declared if each.name) or "none"
    raise UsageError(f"--port {port.text}: the destination has no port of that name; it declares {names}")
