"""What iptables-save prints, read back into the same types that layout makes, and what a set is when it is read.

Only podfence's own chains and sets are read, and the rules of built-in chains that jump to them. A rule that holds
anything podfence never writes is kept as `Foreign`: it equals no wanted rule, so it is replaced and never trusted.
"""

from __future__ import annotations

import shlex
from typing import Literal

import msgspec
from msgspec import Struct

from enforcer.rules.names import is_own_chain
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
    IcmpType,
    InInterface,
    InSet,
    IpProtocol,
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
    Rule,
    Src,
    SrcPort,
    State,
    Target,
)
from policy.cidr import parse_cidr


class Foreign(Struct, frozen=True):
    """A rule in one of our chains that we did not write, as it was printed."""

    text: str


class Counted(Struct, frozen=True):
    """A rule as it is installed, with what it has counted."""

    rule: Rule | Foreign
    packets: int = 0
    bytes: int = 0


class Installed(Struct, frozen=True):
    """The filter table's own part in one family: our chains, and the targets that each built-in chain's rules jump to,
    in order ("" for a rule that is not ours, so that a position can be told)."""

    chains: dict[str, tuple[Counted, ...]]
    builtin: dict[str, tuple[str, ...]]


def parse_tables(text: str) -> Installed:
    """The output of `iptables-save -c -t filter` of either backend."""
    chains: dict[str, list[Counted]] = {}
    builtin: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(":"):
            name, policy = line[1:].split()[:2]
            if is_own_chain(name):
                chains[name] = []
            elif policy != "-":
                builtin[name] = []
            continue
        counters, _, rest = line.partition(" ")
        if not (counters.startswith("[") and rest.startswith("-A ")):
            continue
        chain, _, body = rest[3:].partition(" ")
        if chain in chains:
            packets, octets = (int(number) for number in counters.strip("[]").split(":"))
            chains[chain].append(Counted(parse_rule(body), packets, octets))
        elif chain in builtin:
            words = body.split()
            target = words[1] if len(words) == 2 and words[0] == "-j" else ""
            builtin[chain].append(target if is_own_chain(target) else "")
    return Installed({n: tuple(r) for n, r in chains.items()}, {n: tuple(t) for n, t in builtin.items()})


def parse_rule(body: str) -> Rule | Foreign:
    """One rule without its chain."""
    try:
        return _RuleReader(shlex.split(body)).read()
    except (ValueError, IndexError, KeyError, msgspec.ValidationError):
        return Foreign(body)


_MODULES = {
    "comment",
    "conntrack",
    "connmark",
    "hashlimit",
    "icmp6",
    "multiport",
    "physdev",
    "sctp",
    "set",
    "tcp",
    "udp",
}
_NOT_SYN = ["FIN,SYN,RST,ACK", "SYN"]


class _RuleReader:
    """Words of one rule, taken from the front. ValueError where they are none of ours."""

    def __init__(self, words: list[str]) -> None:
        self._words = words[::-1]
        self._matches: list[Match] = []
        self._comment = ""
        self._target: Target = Count()
        self._limit: dict[str, str] = {}

    def read(self) -> Rule:
        while self._words:
            self._option(self._words.pop())
        if self._limit:
            rate, unit = self._limit["upto"].split("/")
            if unit != "sec":
                raise ValueError(unit)
            per = msgspec.convert(self._limit.get("mode", ""), Literal["srcip", "dstip", ""])
            self._matches.append(Limit(self._limit["name"], per, int(rate)))
        return Rule(tuple(self._matches), self._target, self._comment)

    def _take(self) -> str:
        return self._words.pop()

    def _take_interface(self) -> str:
        name = self._take()
        if name.endswith("+"):
            raise ValueError(f"{name} is many interfaces")
        return name

    def _take_chain(self) -> str:
        name = self._take()
        if not is_own_chain(name):
            raise ValueError(f"{name} is no chain of ours")
        return name

    def _option(self, word: str) -> None:
        match word:
            case "-s":
                self._matches.append(Src(parse_cidr(self._take())))
            case "-d":
                self._matches.append(Dst(parse_cidr(self._take())))
            case "-i":
                self._matches.append(InInterface(self._take_interface()))
            case "-o":
                self._matches.append(OutInterface(self._take_interface()))
            case "--physdev-in":
                self._matches.append(PortIn(self._take_interface()))
            case "--physdev-out":
                self._matches.append(PortOut(self._take_interface()))
                if self._take() != "--physdev-is-bridged":
                    raise ValueError(word)
            case "--physdev-is-bridged":
                self._matches.append(Bridged())
            case "-p":
                self._matches.append(Proto(msgspec.convert(self._take(), IpProtocol)))
            case "-m":
                # A module that is named and asked nothing may still decide, as `-m socket` does.
                if (module := self._take()) not in _MODULES:
                    raise ValueError(module)
            case "--dport" | "--dports":
                self._matches.append(DstPorts(tuple(_range(part) for part in self._take().split(","))))
            case "--sport":
                self._matches.append(SrcPort(int(self._take())))
            case "--ctstate":
                states = tuple(sorted(self._take().split(",")))
                self._matches.append(State(msgspec.convert(states, tuple[CtState, ...])))
            case "--ctdir":
                self._matches.append(CtDir(msgspec.convert(self._take(), CtDirection)))
            case "--mark":
                self._matches.append(ConnMark(_bit(self._take())))
            case "--icmpv6-type":
                self._matches.append(IcmpType(int(self._take())))
            case "!":
                self._matches.append(self._read_inverted(self._take()))
            case "--match-set":
                name, fields = self._take(), self._take().split(",")
                if not name.isascii() or set(name) & set(" \t\"'\\"):
                    raise ValueError(name)  # no set of ours
                self._matches.append(InSet(name, msgspec.convert(fields, tuple[Literal["src", "dst"], ...])))
            case "--comment":
                self._comment = self._take()
            case "--hashlimit-upto" | "--hashlimit-mode" | "--hashlimit-name" | "--hashlimit-burst":
                self._limit[word.removeprefix("--hashlimit-")] = self._take()
            case "-g":
                self._target = Goto(self._take_chain())
            case "-j":
                self._target = self._read_target(self._take())
            case _:
                raise ValueError(word)

    def _read_inverted(self, name: str) -> Match:
        if name == "--mark":
            return ConnMark(_bit(self._take()), inverted=True)
        if name == "--physdev-is-bridged":
            return Bridged(inverted=True)
        if [name, self._take(), self._take()] != ["--tcp-flags", *_NOT_SYN]:
            raise ValueError(name)
        return NotSyn()

    def _read_target(self, name: str) -> Target:
        if name == "RETURN":
            return Return()
        if name == "DROP":
            return Drop()
        if name == "REJECT":
            if self._take() != "--reject-with":
                raise ValueError(name)
            return Reject(self._take())
        if name == "NFLOG":
            options = {self._take(): self._take() for _ in range(len(self._words) // 2)}
            return Nflog(int(options["--nflog-group"]), options["--nflog-prefix"], int(options["--nflog-threshold"]))
        if is_own_chain(name):
            return Jump(name)
        raise ValueError(name)


def _bit(word: str) -> int:
    value, _, mask = word.partition("/")
    if value != mask:
        raise ValueError(word)
    return int(value, 16)


def _range(word: str) -> tuple[int, int]:
    low, colon, high = word.partition(":")
    return int(low), int(high) if colon else int(low)


class InstalledSet(Struct, frozen=True):
    """A set as it is in the kernel: `counts` are packets by element where it counts, `maxelem` is how many elements it
    takes, `references` how many rules look in it, anybody's. A set that is `held` can't go: others' rules do."""

    ipset: IpSet
    counts: dict[Element, int]
    maxelem: int
    references: int = 0
    held: bool = False
