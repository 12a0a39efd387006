"""weave-npc's shape: all rules of all policies in one flat chain for ingress and one for egress, each rule with a set
for either end. The first that matches accepts; pods that nothing isolates are accepted before, namespace by namespace.
"""

from __future__ import annotations

from benchmarks.shapes.text import Local, Text, granted, joined, local, peer_matches, short
from compiler.compile import Compiled
from enforcer.rules.layout import NodeView
from policy.model import DIRECTIONS, Direction, NetworkPolicy

_MARK = "0x40000/0x40000"
_NEW = "-m conntrack --ctstate NEW"
_ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
_IN, _OUT = "WEAVE-NPC", "WEAVE-NPC-EGRESS"


def weave(compiled: Compiled, view: NodeView) -> Text:
    here, text = local(compiled, view), Text()
    text.rule("FORWARD", f"-i veth+ -j {_OUT}", f"-o veth+ -j {_IN}")
    text.rule("FORWARD", f"-o veth+ {_NEW} -j NFLOG --nflog-group 86", "-o veth+ -j DROP")
    text.rule(_IN, f"{_ESTABLISHED} -j ACCEPT", "-d 224.0.0.0/4 -j ACCEPT")
    text.rule(_IN, f"{_NEW} -j {_IN}-DEFAULT", f"{_NEW} -j {_IN}-INGRESS")
    text.rule(_OUT, f"{_ESTABLISHED} -j RETURN", "-d 224.0.0.0/4 -j RETURN")
    text.rule(_OUT, f"{_NEW} -j {_OUT}-DEFAULT", f"{_NEW} -m mark ! --mark {_MARK} -j {_OUT}-CUSTOM")
    text.rule(_OUT, f"{_NEW} -m mark ! --mark {_MARK} -j NFLOG --nflog-group 86", f"-m mark ! --mark {_MARK} -j DROP")
    text.rule(f"{_OUT}-ACCEPT", f"-j MARK --set-xmark {_MARK}")
    for chain in (f"{_IN}-DEFAULT", f"{_IN}-INGRESS", f"{_OUT}-DEFAULT", f"{_OUT}-CUSTOM"):
        text.rule(chain)
    for direction in DIRECTIONS:
        _open_pods(text, here, direction)
        for policy in here.active():
            _policy(text, here, policy, direction)
    return text


def _open_pods(text: Text, here: Local, direction: Direction) -> None:
    for namespace in sorted({pod.namespace for pod in here.pods}):
        pods = [pod for pod in here.pods if pod.namespace == namespace and not here.selecting(pod, direction)]
        name = text.addresses(f"weave-{short(namespace, direction)}", [pod.addresses[0] for pod in pods])
        if direction == "ingress":
            text.rule(f"{_IN}-DEFAULT", f"-m set --match-set {name} dst -j ACCEPT")
        else:
            _accepted(text, f"{_OUT}-DEFAULT", f"-m set --match-set {name} src")


def _policy(text: Text, here: Local, policy: NetworkPolicy, direction: Direction) -> None:
    identity = f"weave-{short(policy.namespace, str(policy.subjects))}"
    its_end, other = ("dst", "src") if direction == "ingress" else ("src", "dst")
    for rule in granted(policy, direction):
        subjects = text.addresses(identity, here.subjects(policy))
        for match in (each for peers in rule.peers for each in peer_matches(text, here, peers, other, "weave-")):
            for ports in rule.ports:
                whole = joined(match, f"-m set --match-set {subjects} {its_end}", ports)
                if direction == "ingress":
                    text.rule(f"{_IN}-INGRESS", f"{whole} -j ACCEPT")
                else:
                    _accepted(text, f"{_OUT}-CUSTOM", whole)


def _accepted(text: Text, chain: str, match: str) -> None:
    text.rule(chain, f"{match} -j {_OUT}-ACCEPT", f"{match} -j RETURN")
