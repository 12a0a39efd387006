"""What is installed on the nodes of a flow, from a laptop: each node's agent is asked to walk it, as `explain --live`
does on the node itself, so that kernel and API server are compared there, and both with our own objects here."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from compiler.verdict import End, Flow
from podfence.agents import Agent, Agents, Answer, decoded
from podfence.answers import LiveOut, WalkOut
from podfence.asking import Asking, Port
from podfence.ends import Named
from podfence.hops import NO_NODE, Hop, flows_to_walk, hops, wanted
from policy.errors import HostRefused


class Question(Struct, frozen=True):
    """What one node is asked: the ends and the port, as its `explain` takes them."""

    node: str
    src: str
    dst: str
    port: str

    @property
    def argv(self) -> list[str]:
        words = ["explain", self.src, self.dst, "--port", self.port, "--live", "--node", self.node, "-o", "json"]
        return ["podfence", *words]


def agent_walks(asking: Asking, src: Named, dst: Named, port: Port, agents: Agents | HostRefused, ours: str) -> LiveOut:
    """Of each flow that is asked about, on each node that it meets. `ours` is what the objects here are called where
    they differ from the API server's. Where `agents` can't be reached, that is what is not seen."""
    unseen: dict[str, None] = {}
    flows, left_out = flows_to_walk(asking, src, dst, port)
    unseen |= dict.fromkeys(left_out)
    hopped: dict[Question, list[tuple[Flow, Hop]]] = {}
    for flow in flows:
        for hop in hops(flow):
            hopped.setdefault(_question(flow, hop), []).append((flow, hop))
    walks: list[WalkOut] = []
    for question, answer in _ask(agents, hopped):
        said = _read(answer)
        if isinstance(said, str):
            unseen[f"node {question.node}: {said}"] = None
            continue
        for flow, hop in hopped[question]:
            found = [walk for walk in said.walks if _is_of(walk, flow, hop)]
            walks += [_compared(asking, walk, flow, hop, ours) for walk in found]
            if not found:
                unseen[f"node {hop.node}: {'; '.join(said.unseen) or 'to it the flow is another one'}"] = None
    return LiveOut(walks, list(unseen) if walks or unseen else [NO_NODE])


def _question(flow: Flow, hop: Hop) -> Question:
    port = "icmp" if flow.protocol == "ICMP" else f"{flow.port}/{flow.protocol.lower()}"
    return Question(hop.node, _name(flow.src), _name(flow.dst), port)


def _name(end: End) -> str:
    return end.pod.key if end.pod and end.pod.selectable else str(end.address)


def _ask(agents: Agents | HostRefused, questions: Iterable[Question]) -> Iterable[tuple[Question, Answer | str]]:
    try:
        if isinstance(agents, HostRefused):
            raise agents
        found = {agent.node: agent for agent in agents.find()}
    except HostRefused as error:
        return [(question, f"its agent can't be asked: {error}") for question in questions]
    return [(question, _asked(agents, found.get(question.node), question)) for question in questions]


def _asked(agents: Agents, agent: Agent | None, question: Question) -> Answer | str:
    if agent is None:
        return f"no agent of podfence is on it, in namespace {agents.namespace}"
    (answer,) = agents.ask([agent], question.argv)
    return answer


def _read(answer: Answer | str) -> LiveOut | str:
    said = answer if isinstance(answer, str) else decoded(answer)
    if isinstance(said, str):
        return said
    try:
        return msgspec.convert(said.get("live"), LiveOut)
    except msgspec.ValidationError as error:
        return f"its answer is not understood: {error}"


def _is_of(walk: WalkOut, flow: Flow, hop: Hop) -> bool:
    assert flow.dst.address
    return (walk.node, walk.family, walk.hook) == (hop.node, flow.dst.address.family, hop.hook)


def _compared(asking: Asking, walk: WalkOut, flow: Flow, hop: Hop, ours: str) -> WalkOut:
    """The node said whether its kernel does what the API server says; here comes whether that is what we know."""
    told = walk.wanted == "accept" and not walk.spared
    allowed = wanted(asking, flow, hop, None)
    if allowed == told:
        return walk
    here, there = "allow" if allowed else "deny", "allows" if told else "denies"
    other = f"{ours} {here} this flow, and what the API server tells the node {there} it"
    return replace(walk, drift="; ".join(filter(None, (other, walk.drift))))
