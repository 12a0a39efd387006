"""The chains that every node has, whatever its pods: hooks and denial."""

from __future__ import annotations

from typing import Literal

from compiler.verdict import NodeEgress
from enforcer import names
from enforcer.dispatch import Chains
from enforcer.ruleset import (
    ConnMark,
    Count,
    CtDir,
    Drop,
    DstPorts,
    Goto,
    IcmpType,
    InInterface,
    InSet,
    Jump,
    Limit,
    Nflog,
    NotSyn,
    Proto,
    Reject,
    Return,
    Rule,
    SrcPort,
    State,
)
from policy.cidr import Family
from policy.model import DIRECTIONS, Direction

LOGS_PER_SECOND = 10
# The bit of a connection's mark that says it is revoked; docs/adr says whose bits the others are.
DEFAULT_MARK = 0x1000
_ADMIN_PROHIBITED: dict[Family, str] = {4: "icmp-admin-prohibited", 6: "icmp6-adm-prohibited"}
# Router and neighbour solicitation, neighbour advertisement, and reports of multicast listeners: what a pod has to say
# to its node before it can be heard. Advertising routers and redirecting is none of a pod's business.
_NEIGHBOUR_DISCOVERY = (131, 132, 133, 135, 136, 143)
_DHCP: dict[Family, tuple[int, int]] = {4: (68, 67), 6: (546, 547)}


def base_chains(
    family: Family,
    node_egress: NodeEgress,
    deny: Literal["reject", "drop"],
    log_group: int,
    mark: int,
) -> Chains:
    chains: Chains = {
        names.FORWARD: (*_passes(family, mark), *(Rule((), Jump(names.DISPATCH[d])) for d in ("egress", "ingress"))),
        names.INPUT: (*_input_passes(family), *_passes(family, mark), *_input_checks(family, node_egress)),
        names.SPOOFED: _dropped("spoofed", log_group),
        names.UNKNOWN: _dropped("unknown", log_group),
        names.REVOKED: _logged("revoked", "srcip", log_group) + _refused(family, deny),
    }
    for direction in DIRECTIONS:
        chains[names.DENY[direction]] = _denied(direction, family, deny, log_group)
    return chains


def _passes(family: Family, mark: int) -> tuple[Rule, ...]:
    """What belongs to a flow that was let through and is not revoked: its packets, and ICMP errors about it (RELATED
    means nothing else for this protocol). An error carries what its sender likes, so none passes for a revoked flow.

    Of a revoked flow, packets the way of its first one go on to the rules, which deny it; those that come back have
    their ends swapped, so the rules would misread them."""
    live = ConnMark(mark, inverted=True)
    icmp = Proto("icmp" if family == 4 else "ipv6-icmp")
    return (
        Rule((State(("ESTABLISHED",)), live), Return()),
        Rule((icmp, State(("RELATED",)), live), Return()),
        Rule((ConnMark(mark), CtDir("REPLY")), Goto(names.REVOKED)),
    )


def _input_passes(family: Family) -> tuple[Rule, ...]:
    client, server = _DHCP[family]
    rules = [Rule((InInterface("lo"),), Return())]
    rules.append(Rule((Proto("udp"), SrcPort(client), DstPorts(((server, server),))), Return()))
    if family == 6:
        rules += (Rule((Proto("ipv6-icmp"), IcmpType(kind)), Return()) for kind in _NEIGHBOUR_DISCOVERY)
    return tuple(rules)


def _input_checks(family: Family, node_egress: NodeEgress) -> tuple[Rule, ...]:
    if node_egress == "enforce":
        return (Rule((), Jump(names.DISPATCH["egress"])),)
    return (Rule((), Jump(names.OTHERS["egress"])),)


def _dropped(why: str, log_group: int) -> tuple[Rule, ...]:
    return (*_logged(why, "srcip", log_group), Rule((), Drop()))


def _logged(why: str, per: Literal["srcip", "dstip"], log_group: int) -> tuple[Rule, ...]:
    return (Rule((Limit(f"pf-{why}", per, LOGS_PER_SECOND),), Nflog(log_group, f"pf:{why}")),)


def _refused(family: Family, deny: Literal["reject", "drop"]) -> tuple[Rule, ...]:
    """A segment of a connection that was open is reset, since an ICMP error would not end it; anything else gets the
    error that names an administrator."""
    if deny == "drop":
        return (Rule((), Drop()),)
    return Rule((Proto("tcp"), NotSyn()), Reject("tcp-reset")), Rule((), Reject(_ADMIN_PROHIBITED[family]))


def _denied(direction: Direction, family: Family, deny: Literal["reject", "drop"], log_group: int) -> tuple[Rule, ...]:
    """Counted by subject, told to user space within limits, then refused."""
    end: Literal["src", "dst"] = "dst" if direction == "ingress" else "src"
    per: Literal["srcip", "dstip"] = "dstip" if direction == "ingress" else "srcip"
    return (
        Rule((InSet(names.set_name(family, f"denied-{direction}"), (end,)),), Count()),
        *_logged(f"denied-{direction}", per, log_group),
        *_refused(family, deny),
    )
