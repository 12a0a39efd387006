"""Each probe against the oracle, at the time of the packet."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.oracle import End, Flow, Oracle
from tests.soak.packets import Asked
from tests.soak.timeline import KINDS, Timeline, Versions

_STATES = 64
# Seconds after which a flow has ended that a change forbids, or goes on that is allowed again. The change is in force
# by then; what is open is looked through beside that.
ENDS_WITHIN = 3.0
Halves = tuple[bool, bool]
Kind = Literal["first", "open", "answer", "unasked"]


@dataclass(frozen=True)
class Sent:
    """`began` is before the packet was given to the kernel, `ended` when it can't be on its way any longer.

    `first` of a flow; or one of a flow that may be `open`, the other way also as an `answer`, or `unasked`. `asked` is
    then the flow's own way, and `back` the other, by which what comes back may pass as the first of a flow.
    `inherited`: the flow was another pod's, which had the address until then; 0 where it was not."""

    number: int
    asked: Asked
    began: float
    ended: float
    port: int
    kind: Kind = "first"
    back: Asked | None = None
    inherited: float = 0.0


@dataclass
class Wrong:
    sent: Sent
    passed: bool
    events: list[str]

    def __str__(self) -> str:
        what = "passed, and is denied" if self.passed else "did not pass, and is allowed"
        sent = self.sent
        head = f"probe {sent.number} ({sent.kind}) at {sent.began:.3f}: {sent.asked} (from port {sent.port}): {what}"
        return "\n  ".join([head, *self.events])


class State:
    """One state of the cluster as the oracle sees it. `nodes` says where pods are that nobody has heard of yet."""

    def __init__(self, objects: list[dict[str, object]], nodes: Mapping[str, str]) -> None:
        self._nodes = nodes
        self._oracle = Oracle(objects)
        self._known = {f"{pod['metadata'].get('namespace')}/{pod['metadata']['name']}" for pod in self._oracle.pods}
        self._asked: dict[Asked, Halves] = {}

    def halves(self, asked: Asked) -> Halves:
        """(egress, ingress). Whoever is not known yet is closed on the node that it is on, though not to the node; on
        another node it is whoever has its address, if anybody has."""
        found = self._asked.get(asked)
        if found is None:
            found = self._asked[asked] = self._judge(asked)
        return found

    def _judge(self, asked: Asked) -> Halves:
        known = {place for place in (asked.src, asked.dst) if place in self._known}
        src, dst = (
            End(address, place if place in known else "")
            for address, place in ((asked.src_address, asked.src), (asked.dst_address, asked.dst))
        )
        ingress, egress = self._oracle.verdict(Flow(src, dst, asked.protocol, asked.port))
        closed = {place for place in (asked.src, asked.dst) if "/" in place} - known
        if self._nodes.get(asked.dst) == asked.src:
            closed.discard(asked.dst)
        return egress and asked.src not in closed, ingress and asked.dst not in closed


@dataclass
class Judge:
    """`nodes` says which node a pod is on. `counts` are of probes: judged, passed, in a transition, with either verdict
    then, beside damage; of those the ones in flows that were open, and of these the ones beside an agent's absence.
    `lags`: seconds after which a packet still passed in a flow of the one who had an address before; more than
    ENDS_WITHIN would be wrong."""

    timeline: Timeline
    fixed: list[dict[str, object]]
    nodes: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[Wrong] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._states: OrderedDict[Versions, State] = OrderedDict()

    def judge(self, sent: Sent, passed: bool) -> None:
        """In the order in which they were sent."""
        self.timeline.judged = sent.began
        self.counts["judged"] += 1
        self.counts["passed"] += passed
        asked, is_open = sent.asked, sent.kind != "first"
        self.counts["in open flows"] += is_open
        self.counts["passed in open flows"] += is_open and passed
        self.counts["inherited"] += sent.inherited > 0
        began = sent.began - ENDS_WITHIN * is_open
        ends = [self.nodes[place] for place in (asked.src, asked.dst) if "/" in place]
        if any(self.timeline.damaged(node, began, sent.ended) for node in ends):
            self.counts["beside damage"] += 1
            return
        if is_open and any(self.timeline.absent(node, began, sent.ended) for node in ends):
            self.counts["beside an absence"] += 1
            return
        versions = (self.timeline.in_force if is_open else self.timeline.admissible)(began, sent.ended)
        self.counts["in a transition"] += len(versions) > 1
        verdicts = self._verdicts(asked, versions, ends)
        if sent.back and self._comes_back(asked, sent.back, versions, ends):
            verdicts |= {True}
        if sent.kind == "unasked":
            verdicts |= {False}  # nobody says that it has to pass
        self.counts["with either verdict"] += len(verdicts) > 1
        if sent.inherited and passed and passed not in verdicts and sent.ended < sent.inherited + ENDS_WITHIN:
            self.lags.append(sent.ended - sent.inherited)
            return
        if passed not in verdicts:
            self.wrong.append(Wrong(sent, passed, self.timeline.recent(sent.began)))

    def _verdicts(self, asked: Asked, versions: list[Versions], ends: list[str]) -> set[bool]:
        return verdicts_of(self._halves(asked, versions), apart=len(set(ends)) > 1)

    def _comes_back(self, asked: Asked, back: Asked, versions: list[Versions], ends: list[str]) -> bool:
        """Each node knows of its own end only: where that allows the flow, what comes back is an answer to it."""
        there, home = self._halves(asked, versions), self._halves(back, versions)
        if len(set(ends)) < 2:
            return any(map(all, [*there, *home]))
        near = any(egress for egress, _ in there) or any(ingress for _, ingress in home)
        far = any(ingress for _, ingress in there) or any(egress for egress, _ in home)
        return near and far

    def _halves(self, asked: Asked, versions: list[Versions]) -> list[Halves]:
        return [self._state(each).halves(asked) for each in versions]

    def _state(self, versions: Versions) -> State:
        found = self._states.get(versions)
        if found is None:
            objects = list(self.fixed)
            for kind, version in zip(KINDS, versions, strict=True):
                objects += self.timeline.objects[kind, version]
            found = self._states[versions] = State(objects, self.nodes)
            while len(self._states) > _STATES:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(versions)
        return found


def verdicts_of(halves: list[Halves], apart: bool) -> set[bool]:
    """What may become of a packet, given egress and ingress in the states that could be in force. Ends on nodes
    `apart` may be in different ones of them: no two nodes change at once."""
    if not apart:
        return {egress and ingress for egress, ingress in halves}
    return {egress and ingress for egress, _ in halves for _, ingress in halves}
