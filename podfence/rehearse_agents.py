"""`podfence rehearse --agents`: each node's agent tells the connections of its node, and they are judged here, against
the cluster with the proposed objects on top.

A pod is taken to be attached where the API server says it runs: that one's interface was not found yet, only its node
knows.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from compiler.compile import Compiled, compile_cluster
from compiler.verdict import NodeEgress
from enforcer.connections.rehearsal import cuts
from enforcer.connections.revocation import Judge
from enforcer.rules.layout import NodeView, local_pods
from podfence.agents import Agents, Answer, decoded
from podfence.node_connections import Connections
from podfence.output import Form, line, show
from podfence.rehearsed import Rehearsed, lines, rehearsed
from policy.cidr import parse_address
from policy.errors import UnknownVerdict

_ASKED = ("podfence", "node", "connections", "-o", "json")


class Proposal(Struct, frozen=True):
    """What would be applied, to which cluster. `only` is the one node to ask, "" for all."""

    paths: tuple[str, ...]
    recursive: bool
    context: str | None
    kubeconfig: str | None
    node_egress: NodeEgress
    agents_namespace: str
    only: str


class NodeLine(Struct, frozen=True, omit_defaults=True):
    """One node's answer; or `error`, why there is none."""

    node: str
    rehearsed: Rehearsed | None = None
    error: str = ""


def rehearse_nodes(proposal: Proposal, exit_code: bool, form: Form) -> int:
    """Prints the answers. UnknownVerdict where a node could not be asked, and no other one answers the question."""
    agents = Agents(proposal.kubeconfig, proposal.context, proposal.agents_namespace)
    found = [each for each in agents.find() if proposal.only in ("", each.node)]
    if not found:
        where = f"on node {proposal.only}, " if proposal.only else ""
        raise UnknownVerdict(f"no agent of podfence {where}in namespace {proposal.agents_namespace}")
    compiled = _compiled(proposal)
    answers = [_node_line(compiled, answer, proposal) for answer in agents.ask(found, _ASKED)]
    show(form, answers, lambda: ())
    if form == "text":
        for each in answers:
            _print(each)
    if exit_code and any(each.rehearsed and each.rehearsed.cut for each in answers):
        return 1
    if unknown := [f"node {each.node}: {each.error}" for each in answers if each.error]:
        raise UnknownVerdict("; ".join(unknown))
    return 0


def _compiled(proposal: Proposal) -> Compiled:
    from podfence.cluster import read_cluster
    from podfence.inputs import read_cluster as read_files
    from podfence.overlay import overlay

    read = read_cluster(proposal.context, proposal.kubeconfig, (), "default")
    if read.unseen:
        raise UnknownVerdict(f"what would be cut can't be known: {'; '.join(read.unseen)}")
    return compile_cluster(overlay(read.cluster, read_files(proposal.paths, proposal.recursive).cluster))


def _node_line(compiled: Compiled, answer: Answer, proposal: Proposal) -> NodeLine:
    node, said = answer.agent.node, decoded(answer)
    if isinstance(said, str):
        return NodeLine(node, error=said)
    try:
        told = msgspec.convert(said, Connections)
    except msgspec.ValidationError as error:
        return NodeLine(node, error=f"its answer is not understood: {error}")
    return NodeLine(node, _judged(compiled, node, told, proposal.node_egress))


def _judged(compiled: Compiled, node: str, told: Connections, node_egress: NodeEgress) -> Rehearsed:
    blocks = next((each.pod_cidrs for each in compiled.cluster.nodes if each.name == node), ())
    pods = local_pods(compiled, node)
    view = NodeView(node, {pod.key: pod.key for pod in pods}, blocks, node_egress=node_egress)
    own, known = (frozenset(map(parse_address, each)) for each in (told.own, told.known))
    released = known - {address for pod in pods for address in pod.addresses}
    judge = Judge(compiled, view, pods, own, released)
    doomed = [flow for kind in told.kinds for flow in kind.flows() if judge.forbids(flow)]
    return rehearsed(cuts(compiled, view, own, released, doomed), told.first_sync, told.audited)


def _print(each: NodeLine) -> None:
    if each.rehearsed is None:
        line(f"node {each.node}: not seen: {each.error}", fg="yellow")
        return
    head, *rest = lines(each.rehearsed)
    line(f"node {each.node} {head}", bold=True)
    for text in rest:
        line(text)
