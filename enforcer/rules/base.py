"""The chains that every node has, whatever its pods: hooks and denial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from enforcer.rules import names
from enforcer.rules.dispatch import Chains
from enforcer.rules.ports import neighbour_passes
from enforcer.rules.ruleset import (
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
from enforcer.rules.view import DEFAULT_MARK, NodeView
from policy.cidr import Family
from policy.model import DIRECTIONS, Direction

__all__ = ["DEFAULT_MARK", "base_chains"]

LOGS_PER_SECOND = 10
# Of packets whose source nobody has checked, all together: whoever forges one address forges a million.
UNCHECKED_LOGS_PER_SECOND = 50
_ADMIN_PROHIBITED: dict[Family, str] = {4: "icmp-admin-prohibited", 6: "icmp6-adm-prohibited"}
# Router and neighbour solicitation, neighbour advertisement, and reports of multicast listeners: what a pod has to say
# to its node before it can be heard. Advertising routers and redirecting is none of a pod's business.
_NEIGHBOUR_DISCOVERY = (131, 132, 133, 135, 136, 143)
# The sets of those who are told that they are denied; without any, everybody is (ADR 0016).
_TOLD: dict[Direction, tuple[str, ...]] = {"ingress": ("everyone", "hosts"), "egress": ()}
_DHCP: dict[Family, tuple[int, int]] = {4: (68, 67), 6: (546, 547)}


def base_chains(family: Family, node: NodeView, checks: str, audits: bool) -> Chains:
    """`checks` is the chain that packets to the node itself go through; `audits` is whether any subject is in audit."""
    chains: Chains = {
        names.FORWARD: (
            *_passes(family, node.mark, neighbour_passes(family, node)),
            *(Rule((), Jump(names.DISPATCH[d])) for d in ("egress", "ingress")),
        ),
        names.INPUT: (*_input_passes(family), *_passes(family, node.mark), Rule((), Jump(checks))),
        names.SPOOFED: _stopped("spoofed", node),
        names.UNKNOWN: _stopped("unknown", node),
        names.REVOKED: _logged_unchecked("revoked", node.log_group) + _refused(family, node.deny),
    }
    for direction in DIRECTIONS:
        audited = _audited(direction, family, node.log_group) if audits else ()
        told = [names.set_name(family, kind) for kind in _TOLD[direction]]
        refused = _refused(family, node.deny, told)
        chains[names.DENY[direction]] = audited + _denied(direction, family, node.log_group) + refused
    return chains


def _passes(family: Family, mark: int, others: tuple[Rule, ...] = ()) -> tuple[Rule, ...]:
    """What belongs to a flow that was let through and is not revoked: its packets, and ICMP errors about it (RELATED
    means nothing else for this protocol). An error carries what its sender likes, so none passes for a revoked flow.

    Of a revoked flow, packets the way of its first one go on to the rules, which deny it; those that come back have
    their ends swapped, so the rules would misread them. `others` pass whatever their connection."""
    live = ConnMark(mark, inverted=True)
    icmp = Proto("icmp" if family == 4 else "ipv6-icmp")
    return (
        Rule((State(("ESTABLISHED",)), live), Return()),
        Rule((icmp, State(("RELATED",)), live), Return()),
        *others,
        Rule((ConnMark(mark), CtDir("REPLY")), Goto(names.REVOKED)),
    )


def _input_passes(family: Family) -> tuple[Rule, ...]:
    client, server = _DHCP[family]
    rules = [Rule((InInterface("lo"),), Return())]
    rules.append(Rule((Proto("udp"), SrcPort(client), DstPorts(((server, server),))), Return()))
    if family == 6:
        rules += (Rule((Proto("ipv6-icmp"), IcmpType(kind)), Return()) for kind in _NEIGHBOUR_DISCOVERY)
    return tuple(rules)


def _stopped(why: str, node: NodeView) -> tuple[Rule, ...]:
    """On a node in audit it only counts: the rule that returns does."""
    if node.mode == "audit":
        return (*_logged_unchecked(f"audit-{why}", node.log_group), Rule((), Return()))
    return (*_logged_unchecked(why, node.log_group), Rule((), Drop()))


def _logged_unchecked(why: str, log_group: int) -> tuple[Rule, ...]:
    limit = Limit(f"pf-all-{why}", "", UNCHECKED_LOGS_PER_SECOND)
    return (Rule((limit,), Nflog(log_group, f"pf:{why}")),)


def _logged(why: str, per: Literal["srcip", "dstip"], log_group: int) -> tuple[Rule, ...]:
    limit, log = _logged_as(why, per, log_group)
    return (Rule((limit,), log),)


def _logged_as(why: str, per: Literal["srcip", "dstip"], log_group: int) -> tuple[Limit, Nflog]:
    return Limit(f"pf-{why}", per, LOGS_PER_SECOND), Nflog(log_group, f"pf:{why}")


def _refused(family: Family, deny: Literal["reject", "drop"], told: Sequence[str] = ()) -> tuple[Rule, ...]:
    """A segment of a connection that was open is reset, since an ICMP error would not end it; anything else gets the
    error that names an administrator. With sets of those who are `told`, a new flow of an address in none of them gets
    no answer: a pod that has not been heard of yet is to try again."""
    if deny == "drop":
        return (Rule((), Drop()),)
    prohibited = Reject(_ADMIN_PROHIBITED[family])
    known = [Rule((InSet(name, ("src",)),), prohibited) for name in told]
    others = [Rule((State(("NEW",)),), Drop())] if told else []
    return (Rule((Proto("tcp"), NotSyn()), Reject("tcp-reset")), *known, *others, Rule((), prohibited))


def _audited(direction: Direction, family: Family, log_group: int) -> tuple[Rule, ...]:
    """Subjects in audit: counted, told, and back to where the chain was jumped to from, so that the walk goes on to the
    other end."""
    end, per = _END[direction]
    audited = InSet(names.set_name(family, "audited"), (end,))
    limit, log = _logged_as(f"audit-{direction}", per, log_group)
    return (
        Rule((InSet(names.set_name(family, f"audited-{direction}"), (end,)),), Count()),
        Rule((audited, limit), log),
        Rule((audited,), Return()),
    )


_END: dict[Direction, tuple[Literal["src", "dst"], Literal["srcip", "dstip"]]] = {
    "ingress": ("dst", "dstip"),
    "egress": ("src", "srcip"),
}


def _denied(direction: Direction, family: Family, log_group: int) -> tuple[Rule, ...]:
    """Counted by subject, and told to user space within limits."""
    end, per = _END[direction]
    return (
        Rule((InSet(names.set_name(family, f"denied-{direction}"), (end,)),), Count()),
        *_logged(f"denied-{direction}", per, log_group),
    )
