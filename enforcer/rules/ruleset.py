"""Rule-sets as data: the chains, rules and sets that a node should have, or has, in one address family.

A rule is a tuple of typed matches and a target. The same types are laid out, rendered, parsed back, compared and
simulated, so that nothing is ever decided from rule text.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from compiler.intervals import Intervals
from policy.cidr import Family, Prefix

IpProtocol = Literal["tcp", "udp", "sctp", "icmp", "ipv6-icmp"]
CtDirection = Literal["ORIGINAL", "REPLY"]
CtState = Literal["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"]


class Src(Struct, frozen=True, tag=True):
    prefix: Prefix


class Dst(Struct, frozen=True, tag=True):
    prefix: Prefix


class InInterface(Struct, frozen=True, tag=True):
    name: str


class OutInterface(Struct, frozen=True, tag=True):
    name: str


class PortIn(Struct, frozen=True, tag=True):
    """The port of a bridge that the packet came in by, whether the bridge forwards it or the node takes it."""

    name: str


class PortOut(Struct, frozen=True, tag=True):
    """The port of a bridge that the packet leaves by: known only of what the bridge itself forwards."""

    name: str


class Bridged(Struct, frozen=True, tag=True):
    """The packet goes from port to port of a bridge; with `inverted` it does not, it is routed."""

    inverted: bool = False


class Proto(Struct, frozen=True, tag=True):
    name: IpProtocol


class DstPorts(Struct, frozen=True, tag=True):
    """Destination ports of the protocol that the rule also matches: at most 15 slots, a range takes two."""

    ranges: Intervals


class SrcPort(Struct, frozen=True, tag=True):
    port: int


class State(Struct, frozen=True, tag=True):
    """Connection states, any of which matches."""

    states: tuple[CtState, ...]


class ConnMark(Struct, frozen=True, tag=True):
    """One bit of the connection's mark: set, or with `inverted` not set. What is not tracked matches neither."""

    bit: int
    inverted: bool = False


class CtDir(Struct, frozen=True, tag=True):
    """Whether the packet goes the way of its connection's first packet, or comes back."""

    direction: CtDirection


class IcmpType(Struct, frozen=True, tag=True):
    """The ICMPv6 type; with it the rule matches that protocol."""

    kind: int


class NotSyn(Struct, frozen=True, tag=True):
    """A TCP segment that does not open a connection."""


class InSet(Struct, frozen=True, tag=True):
    """A set, and the packet's fields in the order of its dimensions: `src` or `dst` for address, port, interface."""

    name: str
    fields: tuple[Literal["src", "dst"], ...]


class Limit(Struct, frozen=True, tag=True):
    """At most `per_second` packets for each source (or destination) address, or of all together where `per` is "", in a
    kernel table of that name. A table is what its first rule made it: other limits take another name."""

    name: str
    per: Literal["srcip", "dstip", ""]
    per_second: int


Match = (
    Src
    | Dst
    | InInterface
    | OutInterface
    | PortIn
    | PortOut
    | Bridged
    | Proto
    | DstPorts
    | SrcPort
    | State
    | ConnMark
    | CtDir
    | IcmpType
    | NotSyn
    | InSet
    | Limit
)


class Jump(Struct, frozen=True, tag=True):
    """Walk `chain`; what returns from it goes on behind this rule."""

    chain: str


class Goto(Struct, frozen=True, tag=True):
    """Walk `chain` instead of the rest of this one; what returns from it goes to the last jump's chain."""

    chain: str


class Return(Struct, frozen=True, tag=True):
    pass


class Drop(Struct, frozen=True, tag=True):
    pass


class Reject(Struct, frozen=True, tag=True):
    """Answer with an error; `reply` is in iptables' own words and differs by family."""

    reply: str


class Nflog(Struct, frozen=True, tag=True):
    """Tell user space, and go on behind this rule. The threshold is how many packets the kernel gathers first."""

    group: int
    prefix: str
    threshold: int = 1


class Count(Struct, frozen=True, tag=True):
    """No target: the rule, and the matched set entry, count; the packet goes on."""


Target = Jump | Goto | Return | Drop | Reject | Nflog | Count


class Rule(Struct, frozen=True):
    """`comment` is for people; rules that differ in nothing else are the same rule to the kernel and to us."""

    matches: tuple[Match, ...]
    target: Target
    comment: str = ""


class Element(Struct, frozen=True, order=True):
    """One entry of a set: a prefix (an address is one of full length), and, by the set's type, protocol and port or
    an interface. `nomatch` takes it from shorter prefixes."""

    prefix: Prefix
    protocol: str = ""
    port: int = 0
    interface: str = ""
    nomatch: bool = False


SetType = Literal["hash:ip", "hash:net", "hash:ip,port", "hash:net,port", "hash:net,iface"]


class IpSet(Struct, frozen=True):
    """`counters`: the kernel counts packets by element, and a change of members must not lose them: such a set decides
    no verdict, so it is changed in place."""

    name: str
    type: SetType
    elements: frozenset[Element]
    counters: bool = False


HookName = Literal["FORWARD", "INPUT"]


class RuleSet(Struct, frozen=True):
    """One family's part of the filter table. `hooks` are podfence's chains by the built-in chain that jumps to them
    from its first place."""

    family: Family
    hooks: dict[HookName, str]
    chains: dict[str, tuple[Rule, ...]]
    sets: dict[str, IpSet]
