"""What installed rules mean: their matches as conditions over the fields of a packet, of which sets are regions too.

What podfence never writes is not guessed at: its target is `Strange`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import assert_never, get_args

from msgspec import Struct

from compiler import intervals
from compiler.intervals import Intervals
from enforcer.readback.fields import EVERY_SERVICE, Interfaces, connections, port_services, protocol_services, service
from enforcer.readback.regions import (
    CONNECTION,
    DST,
    ICMP,
    IN,
    OUT,
    PORT_IN,
    PORT_OUT,
    SERVICE,
    SRC,
    SRC_PORT,
    SYN,
    Condition,
    Fields,
)
from enforcer.rules.parse import Counted, Foreign, InstalledSet
from enforcer.rules.plan import Actual
from enforcer.rules.ruleset import (
    Bridged,
    ConnMark,
    Count,
    CtDir,
    Drop,
    Dst,
    DstPorts,
    Element,
    Goto,
    IcmpType,
    InInterface,
    InSet,
    Jump,
    Limit,
    Match,
    Nflog,
    NotSyn,
    OutInterface,
    PortIn,
    PortOut,
    Proto,
    Reject,
    Rule,
    SetType,
    Src,
    SrcPort,
    State,
    Target,
)
from policy.cidr import Prefix


class Strange(Struct, frozen=True):
    """What a packet meets there can't be known; `why` says what stands there."""

    why: str


class Line(Struct, frozen=True):
    """A rule that decides something: all of `conditions` must hold."""

    conditions: tuple[Condition, ...]
    target: Target | Strange


def reachable(actual: Actual, roots: Iterable[str], interfaces: Interfaces, mark: int) -> dict[str, tuple[Line, ...]]:
    """The chains that a packet can come to from `roots`; one that does not exist is a strange line. `mark` is the only
    bit of a connection's mark that means something."""
    found: dict[str, tuple[Line, ...]] = {}
    waiting = list(roots)
    reader = _Reader(actual.sets, interfaces, mark)
    while waiting:
        name = waiting.pop()
        if name not in found:
            rules = actual.tables.chains.get(name)
            found[name] = reader.lines(name, rules)
            waiting += (line.target.chain for line in found[name] if isinstance(line.target, Jump | Goto))
    return found


def terms_of(chains: Mapping[str, tuple[Line, ...]]) -> Iterator[Fields]:
    for lines in chains.values():
        for line in lines:
            for condition in line.conditions:
                yield from condition.terms


_DENIALS = Drop | Reject


class _Reader:
    """Rules into lines. The regions of a set are worked out once for each way to look in it."""

    def __init__(self, sets: Mapping[str, InstalledSet], interfaces: Interfaces, mark: int) -> None:
        self._sets = sets
        self._mark = mark
        self._interfaces = interfaces
        self._lookups: dict[InSet, Condition] = {}

    def lines(self, chain: str, rules: tuple[Counted, ...] | None) -> tuple[Line, ...]:
        if rules is None:
            return (Line((), Strange(f"the chain {chain} does not exist")),)
        lines = [
            self._line(f"{chain}, rule {number}", counted.rule)
            for number, counted in enumerate(rules, 1)
            if isinstance(counted.rule, Foreign) or not isinstance(counted.rule.target, Nflog | Count)
        ]
        # What is denied either way need not be told apart, and the set of everyone is a large one.
        while len(lines) > 1 and not lines[-1].conditions and all(isinstance(d.target, _DENIALS) for d in lines[-2:]):
            lines[-2:] = lines[-1:]
        return tuple(lines)

    def _line(self, place: str, rule: Rule | Foreign) -> Line:
        if isinstance(rule, Foreign):
            return Line((), Strange(f"{place} is none of podfence's: {rule.text}"))
        product: dict[int, Intervals] = {}
        conditions = []
        target: Target | Strange = rule.target
        for match in rule.matches:
            if strange := self._strange(match):
                target = Strange(f"{place} {strange}")
            elif isinstance(match, InSet):
                conditions.append(self._lookup(match))
            else:
                for at, ranges in self._fields(match).items():
                    product[at] = intervals.intersection(product[at], ranges) if at in product else ranges
        if product:
            conditions.insert(0, Condition(SERVICE, (product,)))
        return Line(tuple(conditions), target)

    def _strange(self, match: Match) -> str:
        """What can't be known of a match in a rule that decides; "" where it can."""
        if isinstance(match, Limit):
            return f"decides by the rate {match.name}"
        if isinstance(match, ConnMark) and match.bit != self._mark:
            return f"asks for the mark {match.bit:#x}, which is not podfence's {self._mark:#x}"
        if not isinstance(match, InSet):
            return ""
        known = self._sets.get(match.name)
        if known is None:
            return f"looks in the set {match.name}, which does not exist"
        if known.ipset.type not in get_args(SetType):
            return f"looks in the set {match.name}, which podfence never makes like that: {known.ipset.type}"
        dimensions = known.ipset.type.count(",") + 1
        if len(match.fields) != dimensions or (known.ipset.type.endswith(",port") and match.fields[1] == "src"):
            return f"looks in the set {match.name}, a {known.ipset.type}, by {','.join(match.fields)}"
        return ""

    def _fields(self, match: Match) -> Fields:
        match match:
            case Src(prefix):
                return {SRC: _span(prefix)}
            case Dst(prefix):
                return {DST: _span(prefix)}
            case InInterface(name):
                return {IN: self._interfaces.named([name])}
            case OutInterface(name):
                return {OUT: self._interfaces.named([name])}
            case PortIn(name):
                return {PORT_IN: self._interfaces.named([name])}
            case PortOut(name):
                return {PORT_OUT: self._interfaces.named([name])}
            case Bridged(inverted):
                return {PORT_OUT: self._interfaces.none if inverted else self._interfaces.some}
            case Proto(name):
                return {SERVICE: protocol_services(name)}
            case DstPorts(ranges):
                return {SERVICE: port_services(intervals.normal(ranges))}
            case SrcPort(port):
                return {SRC_PORT: ((port, port),)}
            case State(names):
                return {CONNECTION: connections(names)}
            case ConnMark(_, inverted):
                return {CONNECTION: connections(marked=not inverted)}
            case CtDir(direction):
                return {CONNECTION: connections(direction=direction)}
            case IcmpType(kind):
                return {ICMP: ((kind, kind),)}
            case NotSyn():
                return {SYN: ((0, 0),)}
            case InSet() | Limit():
                raise TypeError(match)
        assert_never(match)

    def _lookup(self, match: InSet) -> Condition:
        """The elements by what else than the address they ask for, and that joined where the addresses are equal."""
        found = self._lookups.get(match)
        if found is None:
            groups: dict[tuple[str, int, str], list[Element]] = {}
            for e in self._sets[match.name].ipset.elements:
                groups.setdefault((e.protocol, e.port, e.interface), []).append(e)
            by_addresses: dict[Intervals, list[tuple[int, int]]] = {}
            for asked, elements in groups.items():
                by_addresses.setdefault(longest_prefix(elements), []).extend(self._asked(*asked))
            near = SRC if match.fields[0] == "src" else DST
            with_interface = self._sets[match.name].ipset.type.endswith(",iface")
            key = SERVICE if not with_interface else IN if match.fields[1] == "src" else OUT
            found = self._lookups[match] = Condition(
                key, tuple({near: each, key: intervals.normal(also)} for each, also in by_addresses.items())
            )
        return found

    def _asked(self, protocol: str, port: int, interface: str) -> Intervals:
        if interface:
            return self._interfaces.named([interface])
        return service(protocol, port) if protocol else EVERY_SERVICE


def _span(prefix: Prefix) -> Intervals:
    return ((prefix.network, prefix.last),)


def longest_prefix(elements: Sequence[Element]) -> Intervals:
    """The addresses that a set of networks holds: of the prefixes around an address the longest decides."""
    if not any(element.nomatch for element in elements):
        return intervals.normal(span for element in elements for span in _span(element.prefix))
    layers: dict[int, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {}
    for element in elements:
        matching, taken = layers.setdefault(element.prefix.length, ([], []))
        (taken if element.nomatch else matching).append((element.prefix.network, element.prefix.last))
    held: Intervals = ()
    for _, (matching, taken) in sorted(layers.items()):
        held = intervals.union(intervals.difference(held, intervals.normal(taken)), intervals.normal(matching))
    return held
