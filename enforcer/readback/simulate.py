"""A packet's walk through a rule-set, as the kernel would walk it, with the path it took."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from enforcer.rules.ruleset import (
    Bridged,
    ConnMark,
    Count,
    CtDir,
    CtDirection,
    CtState,
    Drop,
    Dst,
    DstPorts,
    Element,
    Goto,
    HookName,
    IcmpType,
    InInterface,
    InSet,
    IpSet,
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
    Return,
    RuleSet,
    Src,
    SrcPort,
    State,
)
from policy.cidr import BITS, Address, Prefix

Outcome = Literal["accept", "drop", "reject"]
PORT_PROTOCOLS = ("tcp", "udp", "sctp")


class Packet(Struct, frozen=True):
    """A packet after destination NAT, where a node's filter table sees it: the first of its connection, if nothing else
    is said. The interfaces are those that it comes in by and, where it is forwarded, leaves by; where one is a bridge,
    iptables knows the port too: always of the way in, of the way out only where the bridge itself forwards. `mark` is
    the connection's."""

    src: Address
    dst: Address
    protocol: str
    port: int = 0
    in_interface: str = ""
    out_interface: str = ""
    state: CtState = "NEW"
    src_port: int = 40000
    icmp_type: int = 128
    syn: bool = True
    mark: int = 0
    ct_direction: CtDirection = "ORIGINAL"
    in_port: str = ""
    out_port: str = ""

    @property
    def is_tracked(self) -> bool:
        """Whether there is a connection whose mark and direction can be asked for."""
        return self.state not in ("INVALID", "UNTRACKED")


class Step(Struct, frozen=True):
    """A rule that matched: its chain, and its place in it, from 0."""

    chain: str
    rule: int


class Walk(Struct, frozen=True):
    """`accept` is a return from the hook's chain: other firewalls keep their say."""

    outcome: Outcome
    steps: tuple[Step, ...]


class Simulator:
    """Answers for one rule-set, which it never changes."""

    def __init__(self, ruleset: RuleSet) -> None:
        self._chains = ruleset.chains
        self._hooks = ruleset.hooks
        self._sets = {name: _SetIndex(ipset) for name, ipset in ruleset.sets.items()}

    def walk(self, hook: HookName, packet: Packet) -> Walk:
        """Where nothing is hooked everything passes."""
        steps: list[Step] = []
        chain = self._hooks.get(hook)
        outcome = self._chain(chain, packet, steps) if chain else None
        return Walk(outcome or "accept", tuple(steps))

    def _chain(self, chain: str, packet: Packet, steps: list[Step]) -> Outcome | None:
        """The outcome, or None where the packet returns to the chain that jumped."""
        number = 0
        rules = self._chains[chain]
        while number < len(rules):
            rule = rules[number]
            number += 1
            if not all(self._matches(match, packet) for match in rule.matches):
                continue
            steps.append(Step(chain, number - 1))
            match rule.target:
                case Return():
                    return None
                case Drop():
                    return "drop"
                case Reject():
                    return "reject"
                case Jump(target):
                    outcome = self._chain(target, packet, steps)
                    if outcome:
                        return outcome
                case Goto(target):
                    chain, number, rules = target, 0, self._chains[target]
                case Nflog() | Count():
                    pass
        return None

    def _matches(self, match: Match, packet: Packet) -> bool:
        match match:
            case Src(prefix):
                return _inside(prefix, packet.src)
            case Dst(prefix):
                return _inside(prefix, packet.dst)
            case InInterface(name):
                return packet.in_interface == name
            case OutInterface(name):
                return packet.out_interface == name
            case PortIn(name):
                return packet.in_port == name
            case PortOut(name):
                return packet.out_port == name
            case Bridged(inverted):
                return bool(packet.out_port) is not inverted
            case Proto(name):
                return packet.protocol == name
            case DstPorts(ranges):
                return any(low <= packet.port <= high for low, high in ranges)
            case SrcPort(port):
                return packet.src_port == port
            case State(states):
                return packet.state in states
            case ConnMark(bit, inverted):
                return packet.is_tracked and bool(packet.mark & bit) is not inverted
            case CtDir(direction):
                return packet.is_tracked and packet.ct_direction == direction
            case IcmpType(kind):
                return packet.icmp_type == kind
            case NotSyn():
                return not packet.syn
            case InSet(name, fields):
                return self._sets[name].matches(packet, fields)
            case Limit():
                return True


def _inside(prefix: Prefix, address: Address) -> bool:
    return prefix.family == address.family and prefix.network <= address.value <= prefix.last


class _SetIndex:
    """The elements of one set by what the kernel hashes; the longest prefix that is there decides."""

    def __init__(self, ipset: IpSet) -> None:
        self._type = ipset.type
        self._elements: dict[tuple[int, int, str, int, str], Element] = {}
        lengths = set()
        for element in ipset.elements:
            prefix = element.prefix
            lengths.add(prefix.length)
            key = (prefix.length, prefix.network, element.protocol, element.port, element.interface)
            self._elements[key] = element
        self._lengths = sorted(lengths, reverse=True)

    def matches(self, packet: Packet, fields: tuple[Literal["src", "dst"], ...]) -> bool:
        address = packet.src if fields[0] == "src" else packet.dst
        protocol, port, interface = "", 0, ""
        if self._type.endswith(",port"):
            if packet.protocol not in PORT_PROTOCOLS:
                return False
            protocol, port = packet.protocol, packet.port if fields[1] == "dst" else packet.src_port
        elif self._type.endswith(",iface"):
            interface = packet.in_interface if fields[1] == "src" else packet.out_interface
        for length in self._lengths:
            host_bits = BITS[address.family] - length
            key = (length, address.value >> host_bits << host_bits, protocol, port, interface)
            found = self._elements.get(key)
            if found is not None:
                return not found.nomatch
        return False
