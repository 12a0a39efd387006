"""Cases, answered from the allow-sets: every flow that a case speaks of, and whether it is as expected."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

from compiler.compile import Compiled
from compiler.intervals import Intervals
from compiler.open_ports import open_ports
from compiler.ports import ALL_PORTS, NO_PORTS, PortSet, port_range
from compiler.prefixes import AddressSet, addresses_of
from compiler.regions import address_text, region_of
from compiler.verdict import End, NodeEgress
from podfence.cases import Case
from podfence.ends import Ends, Named, pairs
from podfence.options import FLOW_PROTOCOLS, protocol_named
from policy.cidr import Prefix, parse_cidr
from policy.errors import UsageError
from policy.model import PROTOCOLS, Pod

Outcome = Literal["passed", "failed", "unknown"]
OUTSIDE = ("outside", "internet")
_WILD = frozenset("*?[")


class Wrong(Struct, frozen=True):
    """One flow that is not as expected, or of which that can't be known. `allowed` are the ports that are."""

    src: str
    dst: str
    port: str
    outcome: Outcome
    allowed: str


class Judged(Struct, frozen=True):
    """`flows`: how many pairs of ends were asked, each with all ports of the case."""

    case: Case
    outcome: Outcome
    flows: int
    wrong: tuple[Wrong, ...]


class Judge:
    def __init__(self, compiled: Compiled, namespace: str, node_egress: NodeEgress) -> None:
        self.compiled = compiled
        self.ends = Ends(compiled, namespace)
        self._node_egress = node_egress
        self._pods = [pod for pod in compiled.cluster.pods if not pod.finished]

    def judge(self, case: Case) -> Judged:
        """UsageError, with file, line and field, for a name that names nothing, or a wildcard that fits nothing."""
        wrong: list[Wrong] = []
        flows = 0
        for src, dst in self.flows(case):
            for one, other in pairs(src, dst):
                flows += 1
                found = open_ports(self.compiled, one, other, self._node_egress)
                for text in case.ports or ("any port",):
                    wanted = self._wanted(text, other, case)
                    outcome = _outcome(case, wanted, found.ports, found.possible)
                    if outcome != "passed":
                        allowed = str(found.ports.intersection(wanted))
                        wrong.append(Wrong(_called(one, src), _called(other, dst), text, outcome, allowed))
        if case.only is not None:
            flows += 1
            wrong += self._outside(case)
        outcomes = {each.outcome for each in wrong}
        worst: Outcome = "failed" if "failed" in outcomes else "unknown" if outcomes else "passed"
        return Judged(case, worst, flows, tuple(dict.fromkeys(wrong)))

    def flows(self, case: Case) -> Iterator[tuple[Named, Named]]:
        """The pairs of ends that the case speaks of, but for the outside of an `only`."""
        destinations = self.destinations(case)
        if case.only is None:
            sources = self._named(case, "from", case.src)
        else:
            blocks, names = _split(case.only)
            allowed = {end.pod.key for each in self._named(case, "only", names) for end in each.ends if end.pod}
            held = addresses_of(blocks)
            sources = [
                self.ends.find(pod.key if not pod.stands_in else f"{pod.namespace}/{pod.workload}")
                for pod in self._pods
                if pod.selectable and pod.key not in allowed and not any(map(held.contains, pod.addresses))
            ]
        for src in sources:
            for dst in destinations:
                if case.only is None or not _same(src, dst):
                    yield src, dst

    def destinations(self, case: Case) -> list[Named]:
        return self._named(case, "to", case.dst)

    def _named(self, case: Case, field: str, names: tuple[str, ...]) -> list[Named]:
        found: dict[str, Named] = {}
        for name in names:
            try:
                for named in self._wild(name) if _WILD & set(name) else [self._find(name)]:
                    found[named.name] = named
            except UsageError as error:
                raise UsageError(f"{case.place.of(field)}: {error}") from None
        return list(found.values())

    def _find(self, name: str) -> Named:
        return self.ends.find("internet" if name in OUTSIDE else name)

    def _wild(self, pattern: str) -> list[Named]:
        """The pods whose name fits, or their workload's."""
        found = [pod for pod in self._pods if any(fnmatchcase(name, pattern) for name in _names(pod))]
        if not found:
            raise UsageError(f"no pod or workload fits {pattern!r}")
        return [self.ends.find(pod.key if not pod.stands_in else f"{pod.namespace}/{pod.workload}") for pod in found]

    def _wanted(self, text: str, dst: End, case: Case) -> PortSet:
        if text == "any port":
            return ALL_PORTS
        try:
            return port_set(text, dst)
        except UsageError as error:
            raise UsageError(f"{case.place.of('port')}: {error}") from None

    def _outside(self, case: Case) -> Iterator[Wrong]:
        """Addresses that are no pod's and may reach the destinations of an `only`."""
        blocks, names = _split(case.only or ())
        if set(names) & set(OUTSIDE):
            return
        mine = [Prefix(a.family, a.value, 32 if a.family == 4 else 128) for pod in self._pods for a in pod.addresses]
        excused = addresses_of([*blocks, *mine])
        for dst in self.destinations(case):
            for end in dst.ends:
                if end.pod is None or not end.pod.selectable:
                    continue
                families = _of_families(end)
                for ports, addresses in region_of(self.compiled.allow(end.pod, "ingress")).items():
                    left = addresses.intersection(families).difference(excused)
                    for text in case.ports or ("any port",):
                        allowed = ports.intersection(self._wanted(text, end, case))
                        if left and allowed:
                            src = f"outside ({address_text(left)})"
                            yield Wrong(src, _called(end, dst), text, "failed", str(allowed))


def _of_families(end: End) -> AddressSet:
    whole4: Intervals = ((0, (1 << 32) - 1),)
    whole6: Intervals = ((0, (1 << 128) - 1),)
    if end.address is None:
        return AddressSet(whole4, whole6)
    return AddressSet(whole4, ()) if end.address.family == 4 else AddressSet((), whole6)


def _outcome(case: Case, wanted: PortSet, known: PortSet, possible: PortSet) -> Outcome:
    if case.expect == "allow":
        return "passed" if known.covers(wanted) else "unknown" if possible.covers(wanted) else "failed"
    if known.intersection(wanted):
        return "failed"
    return "unknown" if possible.intersection(wanted) else "passed"


def port_set(text: str, dst: End) -> PortSet:
    """`8080`, `8000-8010/tcp`, `53/udp`, `icmp`, or a name, which is looked up at the destination."""
    if text.lower() == "icmp":
        return PortSet(other=True)
    head, slash, tail = text.partition("/")
    protocol = protocol_named(tail or "tcp", PROTOCOLS)
    if protocol is None:
        raise UsageError(f"{text!r}: not a protocol: {tail!r}, expected one of {', '.join(FLOW_PROTOCOLS)}")
    low, dash, high = head.partition("-")
    if low.isascii() and low.isdigit() and (not dash or (high.isascii() and high.isdigit())):
        first, last = int(low[:6]), int((high or low)[:6])
        if not 1 <= first <= last <= 65535:
            raise UsageError(f"{text!r}: not a port, expected 1 to 65535")
        return port_range(protocol, first, last)
    found = NO_PORTS
    for port in dst.pod.ports if dst.pod else ():
        if port.name == head and (not slash or port.protocol == protocol):
            found = found.union(port_range(port.protocol, port.port, port.port))
    if not found:
        raise UsageError(f"{text!r}: {dst.pod.key if dst.pod else 'the destination'} has no port of that name")
    return found


def _split(names: tuple[str, ...]) -> tuple[list[Prefix], tuple[str, ...]]:
    """Blocks of addresses, and names."""
    blocks, others = [], []
    for name in names:
        try:
            blocks.append(parse_cidr(name if "/" in name else f"{name}/{128 if ':' in name else 32}"))
        except ValueError:
            others.append(name)
    return blocks, tuple(others)


def _names(pod: Pod) -> tuple[str, ...]:
    return (pod.key, f"{pod.namespace}/{pod.workload}") if pod.workload else (pod.key,)


def _called(end: End, named: Named) -> str:
    return end.pod.key if end.pod else named.name


def _same(src: Named, dst: Named) -> bool:
    keys = [{end.pod.key for end in each.ends if end.pod} for each in (src, dst)]
    return len(keys[0]) == 1 and keys[0] == keys[1] and not any(e.pod and e.pod.stands_in for e in src.ends)
