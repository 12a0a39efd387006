"""Each probe against the oracle, at the time of the packet."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from tests.oracle import End, Flow, Oracle
from tests.soak.packets import Asked
from tests.soak.timeline import KINDS, Timeline, Versions

_STATES = 24
Halves = tuple[bool, bool]


@dataclass(frozen=True)
class Sent:
    """`began` is before the packet was given to the kernel, `ended` when it can't be on its way any longer."""

    number: int
    asked: Asked
    began: float
    ended: float
    port: int


@dataclass
class Wrong:
    sent: Sent
    passed: bool
    events: list[str]

    def __str__(self) -> str:
        what = "passed, and is denied" if self.passed else "did not pass, and is allowed"
        head = (
            f"probe {self.sent.number} at {self.sent.began:.3f}: {self.sent.asked} (from port {self.sent.port}): {what}"
        )
        return "\n  ".join([head, *self.events])


class State:
    """One state of the cluster as the oracle sees it."""

    def __init__(self, objects: list[dict[str, object]]) -> None:
        self._oracle = Oracle(objects)
        self._known = {f"{pod['metadata'].get('namespace')}/{pod['metadata']['name']}" for pod in self._oracle.pods}
        self._asked: dict[Asked, Halves] = {}

    def halves(self, asked: Asked) -> Halves:
        """(egress, ingress). Whoever is not known yet is closed, on the node that it is on."""
        found = self._asked.get(asked)
        if found is None:
            found = self._asked[asked] = self._judge(asked)
        return found

    def _judge(self, asked: Asked) -> Halves:
        if not all(place in self._known for place in (asked.src, asked.dst) if "/" in place):
            return False, False
        src, dst = (
            End(address, place if "/" in place else "")
            for address, place in ((asked.src_address, asked.src), (asked.dst_address, asked.dst))
        )
        ingress, egress = self._oracle.verdict(Flow(src, dst, asked.protocol, asked.port))
        return egress, ingress


@dataclass
class Judge:
    """`nodes` says which node a pod is on. `counts` are of probes: judged, passed, in a transition, with either verdict
    then, beside damage."""

    timeline: Timeline
    fixed: list[dict[str, object]]
    nodes: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[Wrong] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._states: OrderedDict[Versions, State] = OrderedDict()

    def judge(self, sent: Sent, passed: bool) -> None:
        self.counts["judged"] += 1
        self.counts["passed"] += passed
        asked = sent.asked
        ends = [self.nodes[place] for place in (asked.src, asked.dst) if "/" in place]
        if any(self.timeline.damaged(node, sent.began, sent.ended) for node in ends):
            self.counts["beside damage"] += 1
            return
        versions = self.timeline.admissible(sent.began, sent.ended)
        halves = [self._state(each).halves(asked) for each in versions]
        self.counts["in a transition"] += len(versions) > 1
        verdicts = verdicts_of(halves, apart=len(set(ends)) > 1)
        self.counts["with either verdict"] += len(verdicts) > 1
        if passed not in verdicts:
            self.wrong.append(Wrong(sent, passed, self.timeline.recent(sent.began)))

    def _state(self, versions: Versions) -> State:
        found = self._states.get(versions)
        if found is None:
            objects = list(self.fixed)
            for kind, version in zip(KINDS, versions, strict=True):
                objects += self.timeline.objects[kind, version]
            found = self._states[versions] = State(objects)
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
