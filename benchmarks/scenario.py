"""Clusters to measure in: a node with two real pods, and flows that are allowed there.

Only the pods that flows go between are real. The node's other pods are rules and set entries alone, which is all that
a packet ever meets of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Literal

from msgspec import Struct

from benchmarks.frames import Flow
from compiler.compile import Compiled, compile_cluster
from compiler.verdict import End, verdict
from compiler.verdict import Flow as PolicyFlow
from policy.cidr import Address, parse_cidr
from policy.model import DIRECTIONS, Cluster, Namespace, NetworkPolicy, Node, Peer, Pod, Port, Rule
from policy.selector import EVERYTHING, NAMESPACE_NAME_LABEL, Selector, in_, selector

Sender = Literal["outside", "src"]
NODE, ELSEWHERE = "here", "elsewhere"
BLOCK = parse_cidr("10.100.0.0/16")
PORT = 8080
FIRST_PORT = 10000
FIRST_SRC_PORT = 20000
MOST_FLOWS = 2000
_REMOTE = parse_cidr("10.0.0.0/10")


class Scenario(Struct, frozen=True):
    """`src` and `dst` are the two real pods, both on NODE. All `flows` go to `dst` and are allowed; `sender` says
    whether they come from `src`, or from pods on other nodes."""

    compiled: Compiled
    src: Pod
    dst: Pod
    sender: Sender
    flows: tuple[Flow, ...]


def local(number: int) -> Address:
    """The address of a pod on NODE."""
    return Address(4, BLOCK.network + 1 + number)


def remote(number: int) -> Address:
    return Address(4, _REMOTE.network + 1 + number)


def veth(pod: Pod) -> str:
    """A name as the lab's veths have it, for a pod that is none of the lab's."""
    return f"veth{blake2b(pod.key.encode(), digest_size=4).hexdigest()}"


def policies(count: int, distinct: bool) -> Scenario:
    """`count` policies select `dst`, each for a peer pod of its own: all at one port, or each at its own."""
    src, dst = _pod(0, "src"), _pod(1, "dst")
    peers = [_remote_pod(n, peer=f"p{n}") for n in range(count)]
    ports = [FIRST_PORT + n if distinct else PORT for n in range(count)]
    granting = [
        policy(f"p{n:04}", _is(app="dst"), ingress=[rule([_is(peer=f"p{n}")], [port])]) for n, port in enumerate(ports)
    ]
    drawn = random.Random(1).choices(range(count), k=MOST_FLOWS)
    sent = [Flow(peers[n].addresses[0], dst.addresses[0], FIRST_SRC_PORT + k, ports[n]) for k, n in enumerate(drawn)]
    return scenario([src, dst, *peers], granting, "outside", sent)


def local_pods(count: int, sender: Sender) -> Scenario:
    """`count` pods of the node are isolated both ways, `dst` in the middle of them. What `src` (which is one of them,
    where it sends) or a remote pod sends to `dst` is granted."""
    middle = count // 2
    names = ["dst" if n == middle else f"local-{n}" for n in range(count)]
    names[0] = "src" if count > 1 else names[0]
    pods = [_pod(n, name) for n, name in enumerate(names)]
    pods += [] if count > 1 else [_pod(1, "src")]
    far = _remote_pod(0, app="far")
    isolated = [policy(f"{name}", _is(app=name), ingress=[], egress=[]) for name in names if name not in ("src", "dst")]
    if count > 1:
        isolated.append(policy("src", _is(app="src"), ingress=[], egress=[rule([_is(app="dst")], [PORT])]))
    grant = rule([_is(app="far"), _is(app="src")], [PORT])
    isolated.append(policy("dst", _is(app="dst"), ingress=[grant], egress=[]))
    source = next(pod for pod in pods if pod.name == "src") if sender == "src" else far
    return scenario([*pods, far], isolated, sender, _same(source, pods[middle]))


def both_ends(isolated: bool, sender: Sender = "src") -> Scenario:
    """Egress of `src` and ingress of `dst` isolated and granted, or no policy at all."""
    src, dst, far = _pod(0, "src"), _pod(1, "dst"), _remote_pod(0, app="far")
    ends = [
        policy("src", _is(app="src"), egress=[rule([_is(app="dst")], [PORT])]),
        policy("dst", _is(app="dst"), ingress=[rule([_is(app="src")], [PORT])]),
    ]
    return scenario([src, dst, far], ends if isolated else [], sender, _same(src if sender == "src" else far, dst))


def scenario(
    pods: Sequence[Pod],
    its_policies: Sequence[NetworkPolicy],
    sender: Sender,
    flows: Sequence[Flow],
) -> Scenario:
    """Of the pods, those with the addresses that the flows have, or else the one called `src`, are the real ones."""
    by_address = {pod.addresses[0]: pod for pod in pods}
    dst = by_address[flows[0].dst]
    src = by_address[flows[0].src] if sender == "src" else next(pod for pod in pods if pod.node == NODE and pod != dst)
    return Scenario(compile_cluster(cluster(pods, its_policies)), src, dst, sender, tuple(flows))


def cluster(pods: Sequence[Pod], its_policies: Sequence[NetworkPolicy]) -> Cluster:
    names = sorted({pod.namespace for pod in pods})
    namespaces = [Namespace(name, {NAMESPACE_NAME_LABEL: name}) for name in names]
    nodes = [Node(name, {}) for name in (NODE, ELSEWHERE)]
    return Cluster(namespaces, list(pods), list(its_policies), [], [], nodes)


def allowed(compiled: Compiled, flows: Iterable[Flow]) -> list[bool]:
    """Whether NODE lets each flow to a pod of its own pass: the egress of pods elsewhere is their nodes' business."""
    answers = []
    for flow in flows:
        src, dst = (End(compiled.pod_at(address), address) for address in (flow.src, flow.dst))
        found = verdict(compiled, PolicyFlow(src, dst, "UDP", flow.dst_port))
        sends_here = src.pod is not None and src.pod.node == NODE
        answers.append(found.ingress.allowed and (found.egress.allowed or not sends_here))
    return answers


def policy(
    name: str,
    subjects: Selector = EVERYTHING,
    ingress: Sequence[Rule] | None = None,
    egress: Sequence[Rule] | None = None,
    namespace: str = "bench",
) -> NetworkPolicy:
    """Isolates in the directions that it has a list for."""
    lists = {"ingress": ingress, "egress": egress}
    isolates = tuple(direction for direction in DIRECTIONS if lists[direction] is not None)
    return NetworkPolicy(namespace, name, subjects, isolates, tuple(ingress or ()), tuple(egress or ()))


def rule(peers: Sequence[Selector], ports: Sequence[int]) -> Rule:
    return Rule(tuple(Peer(pods=each) for each in peers), tuple(Port("UDP", port, port) for port in ports))


def _same(src: Pod, dst: Pod) -> list[Flow]:
    return [Flow(src.addresses[0], dst.addresses[0], FIRST_SRC_PORT + k, PORT) for k in range(MOST_FLOWS)]


def _pod(number: int, name: str) -> Pod:
    return Pod("bench", name, {"app": name}, node=NODE, addresses=(local(number),))


def _remote_pod(number: int, **labels: str) -> Pod:
    return Pod("bench", f"remote-{number}", labels, node=ELSEWHERE, addresses=(remote(number),))


def _is(**labels: str) -> Selector:
    return selector([in_(key, value) for key, value in labels.items()])
