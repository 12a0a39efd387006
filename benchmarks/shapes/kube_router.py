"""kube-router's shape: a firewall chain for each pod, found by address in one long chain, which runs through the chain
of every policy that selects the pod. A policy's chain marks what it allows; what is unmarked in the end is rejected.

Every policy of the pod is walked through for every new flow, whichever of them allows it.
"""

from __future__ import annotations

from benchmarks.shapes.text import Granted, Local, Text, granted, joined, local, short
from compiler.compile import Compiled
from compiler.peers import EVERYONE, PeerSet, peer_set
from compiler.prefixes import NO_ADDRESSES
from enforcer.rules.layout import NodeView
from policy.model import DIRECTIONS, Direction, NetworkPolicy, Pod

_ALLOWED = "0x10000/0x10000"
_DONE = "0x20000/0x20000"
_TOP, _COMMON, _DEFAULT = "KUBE-ROUTER-FORWARD", "KUBE-NWPLCY-COMMON", "KUBE-NWPLCY-DEFAULT"


def kube_router(compiled: Compiled, view: NodeView) -> Text:
    here, text = local(compiled, view), Text()
    text.rule("FORWARD", f"-j {_TOP}")
    text.rule(
        _COMMON,
        "-m conntrack --ctstate INVALID -j DROP",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        *(f"-p icmp -m icmp --icmp-type {kind} -j ACCEPT" for kind in ("echo-request", "3", "11")),
    )
    text.rule(_DEFAULT, f"-j MARK --set-xmark {_ALLOWED}")
    for policy in here.active():
        _policy(text, here, policy)
    for pod in here.pods:
        _pod(text, here, pod)
    text.rule(_TOP, f"-m mark --mark {_DONE} -j ACCEPT")
    return text


def _pod(text: Text, here: Local, pod: Pod) -> None:
    address, chain = pod.addresses[0], f"KUBE-POD-FW-{short(pod.key)}"
    text.rule(_TOP, *(f"{end} {address} -j {chain}" for end in ("-d", "-s")))
    text.rule(chain, f"-j {_COMMON}", f"-d {address} -m addrtype --src-type LOCAL -j ACCEPT")
    for direction in DIRECTIONS:
        end = "-d" if direction == "ingress" else "-s"
        policies = here.selecting(pod, direction)
        walked = [_name(policy) for policy in policies] or [_DEFAULT]
        text.rule(chain, *(f"{end} {address} -j {each}" for each in walked))
    text.rule(
        chain,
        f"-m mark ! --mark {_ALLOWED} -m limit --limit 10/min --limit-burst 10 -j NFLOG --nflog-group 100",
        f"-m mark ! --mark {_ALLOWED} -j REJECT --reject-with icmp-port-unreachable",
        "-j MARK --set-xmark 0x0/0x10000",
        f"-j MARK --set-xmark {_DONE}",
    )


def _policy(text: Text, here: Local, policy: NetworkPolicy) -> None:
    chain = _name(policy)
    text.rule(chain)
    subjects = text.addresses(f"KUBE-DST-{short(policy.key)}", here.subjects(policy))
    for direction in DIRECTIONS:
        its_end, other = ("dst", "src") if direction == "ingress" else ("src", "dst")
        for number, rule in enumerate(granted(policy, direction)):
            for peers in _peer_sets(text, here, policy, direction, number, rule):
                match = f"-m set --match-set {peers} {other}" if peers else ""
                for ports in rule.ports:
                    whole = joined(match, f"-m set --match-set {subjects} {its_end}", ports)
                    text.rule(chain, f"{whole} -j MARK --set-xmark {_ALLOWED}")
                    text.rule(chain, f"{whole} -m mark --mark {_ALLOWED} -j RETURN")


def _peer_sets(
    text: Text, here: Local, policy: NetworkPolicy, direction: Direction, number: int, rule: Granted
) -> list[str]:
    """One set for the pods of all entries of a rule and one for its blocks; "" where everyone is meant."""
    if EVERYONE in rule.peers:
        return [""]
    identity = short(policy.key, direction, str(number))
    found = []
    terms = [term for peers in rule.peers for term in peers.pods]
    if terms:
        found.append(text.addresses(f"KUBE-SRC-{identity}", here.members(peer_set(terms, NO_ADDRESSES))))
    blocks = NO_ADDRESSES
    for peers in rule.peers:
        blocks = blocks.union(peers.addresses)
    if blocks:
        found.append(text.blocks(f"KUBE-IPB-{identity}", PeerSet((), blocks)))
    return found


def _name(policy: NetworkPolicy) -> str:
    return f"KUBE-NWPLCY-{short(policy.key)}"
