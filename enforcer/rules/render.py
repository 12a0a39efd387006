"""Rule-sets as the text that iptables-restore and ipset restore read. The only place where text is made of rules.

The same text serves the legacy and the nft backend. Names that come from a cluster reach it only as comments, and
comments are cut and cleaned here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
    Rule,
    Src,
    SrcPort,
    State,
    Target,
)
from policy.cidr import BITS, Address, Family

# iptables takes 255 characters and reads back about as many.
COMMENT_LENGTH = 200
MIN_MAXELEM = 65536
# The kernel's own least; its default of 1,024 buckets would cost each small set 8 KB.
MIN_HASHSIZE = 64


def rule_text(rule: Rule) -> str:
    """One rule without its chain, as iptables-restore takes it."""
    protocol = next((match.name for match in rule.matches if isinstance(match, Proto)), "")
    words = [_match_text(match, protocol) for match in rule.matches]
    if rule.comment:
        words.append(f'-m comment --comment "{comment_text(rule.comment)}"')
    words.append(_target_text(rule.target))
    return " ".join(word for word in words if word)


def _match_text(match: Match, protocol: str) -> str:
    match match:
        case Src(prefix):
            return f"-s {prefix}"
        case Dst(prefix):
            return f"-d {prefix}"
        case InInterface(name):
            return f"-i {name}"
        case OutInterface(name):
            return f"-o {name}"
        case PortIn(name):
            return f"-m physdev --physdev-in {name}"
        case PortOut(name):
            return f"-m physdev --physdev-out {name} --physdev-is-bridged"
        case Bridged(inverted):
            return f"-m physdev {'! ' if inverted else ''}--physdev-is-bridged"
        case Proto(name):
            return f"-p {name}"
        case DstPorts(((low, high),)):
            return f"-m {protocol} --dport {_range_text(low, high)}"
        case DstPorts(ranges):
            return "-m multiport --dports " + ",".join(_range_text(low, high) for low, high in ranges)
        case SrcPort(port):
            return f"-m {protocol} --sport {port}"
        case State(states):
            return "-m conntrack --ctstate " + ",".join(states)
        case ConnMark(bit, inverted):
            return f"-m connmark {'! ' if inverted else ''}--mark {bit:#x}/{bit:#x}"
        case CtDir(direction):
            return f"-m conntrack --ctdir {direction}"
        case IcmpType(kind):
            return f"-m icmp6 --icmpv6-type {kind}"
        case NotSyn():
            return "-m tcp ! --syn"
        case InSet(name, fields):
            return f"-m set --match-set {name} {','.join(fields)}"
        case Limit(name, per, rate):
            mode = f" --hashlimit-mode {per}" if per else ""
            return f"-m hashlimit --hashlimit-upto {rate}/sec{mode} --hashlimit-name {name}"


def _range_text(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}:{high}"


def _target_text(target: Target) -> str:
    match target:
        case Jump(chain):
            return f"-j {chain}"
        case Goto(chain):
            return f"-g {chain}"
        case Return():
            return "-j RETURN"
        case Drop():
            return "-j DROP"
        case Reject(reply):
            return f"-j REJECT --reject-with {reply}"
        case Nflog(group, prefix, threshold):
            return f'-j NFLOG --nflog-prefix "{prefix}" --nflog-group {group} --nflog-threshold {threshold}'
        case Count():
            return ""


def comment_text(comment: str) -> str:
    """What of a comment can stand in quotes on one line: printable ASCII without quote and backslash."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in comment)[:COMMENT_LENGTH]


def chains_text(
    write: Mapping[str, Iterable[Rule]],
    delete: Iterable[str] = (),
    hooks: Mapping[HookName, str] | None = None,
    unhook: Iterable[tuple[HookName, str]] = (),
    insert: Mapping[str, Sequence[Rule]] | None = None,
) -> str:
    """One transaction for `iptables-restore --noflush`. Chains of `write` get exactly their rules, whatever they held;
    those of `insert` get theirs in front; `hooks` put a jump in the first place of a built-in chain, after the `unhook`
    ones are gone."""
    lines = ["*filter"]
    lines += (f":{chain} - [0:0]" for chain in (*write, *delete))
    for chain, rules in write.items():
        lines += (f"-A {chain} {rule_text(rule)}" for rule in rules)
    for chain, first in (insert or {}).items():
        lines += (f"-I {chain} 1 {rule_text(rule)}" for rule in reversed(first))
    lines += (f"-D {builtin} -j {chain}" for builtin, chain in unhook)
    lines += (f"-I {builtin} 1 -j {chain}" for builtin, chain in (hooks or {}).items())
    lines += (f"-X {chain}" for chain in delete)
    return "\n".join([*lines, "COMMIT", ""])


def create_text(ipset: IpSet, family: Family) -> str:
    """The lines that make `ipset` and fill it."""
    inet = "inet" if family == 4 else "inet6"
    hashsize, maxelem = table_size(len(ipset.elements))
    counters = " counters" if ipset.counters else ""
    head = f"create {ipset.name} {ipset.type} family {inet} hashsize {hashsize} maxelem {maxelem}{counters}"
    return "\n".join([head, *(f"add {ipset.name} {element_text(e)}" for e in sorted(ipset.elements)), ""])


def table_size(elements: int) -> tuple[int, int]:
    """How many buckets a set of that many elements starts with, and how many elements it may ever hold: one or two in
    a bucket, so that filling it never rehashes, and room for twice as many."""
    return max(MIN_HASHSIZE, 1 << (elements // 2).bit_length()), max(MIN_MAXELEM, 1 << (2 * elements).bit_length())


def element_text(element: Element) -> str:
    """As `ipset save` shows it."""
    prefix = element.prefix
    # ipset shows no length where it is the whole address.
    text = str(Address(prefix.family, prefix.network)) if prefix.length == BITS[prefix.family] else str(prefix)
    if element.protocol:
        text += f",{element.protocol}:{element.port}"
    if element.interface:
        text += f",{element.interface}"
    return f"{text} nomatch" if element.nomatch else text
