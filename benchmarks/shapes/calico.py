"""Calico's shape: a tree over interface names leads to a chain for each pod and direction, which jumps to each of the
pod's policies until one has set the mark that accepts. Newer releases gather policies that pods share in groups, which
spares some of the checks between the jumps.
"""

from __future__ import annotations

from benchmarks.shapes.text import Local, Text, granted, joined, local, peer_matches, short
from compiler.compile import Compiled
from enforcer.rules.layout import NodeView
from policy.model import DIRECTIONS, Direction, NetworkPolicy, Pod

_ACCEPT, _PASS = "0x10000/0x10000", "0x20000/0x20000"
_NO_PASS = "0x0/0x20000"
_SET = {"ingress": "cali-pi-", "egress": "cali-po-"}
_WORKLOAD = {"ingress": "cali-tw-", "egress": "cali-fw-"}
_DISPATCH = {"ingress": "cali-to-wl-dispatch", "egress": "cali-from-wl-dispatch"}
_PREFIX = "veth"


def calico(compiled: Compiled, view: NodeView) -> Text:
    here, text = local(compiled, view), Text()
    text.rule("FORWARD", "-j cali-FORWARD", f"-m mark --mark {_ACCEPT} -j ACCEPT")
    text.rule("cali-FORWARD", "-j MARK --set-xmark 0x0/0xe0000", "-m mark --mark 0x0/0x10000 -j cali-from-hep-forward")
    text.rule("cali-from-hep-forward")
    text.rule("cali-FORWARD", f"-i {_PREFIX}+ -j {_DISPATCH['egress']}", f"-o {_PREFIX}+ -j {_DISPATCH['ingress']}")
    for direction in DIRECTIONS:
        _dispatch(text, here, direction)
        for policy in here.active():
            if direction in policy.isolates:
                _policy(text, here, policy, direction)
        for pod in here.pods:
            _workload(text, here, pod, direction)
    return text


def _dispatch(text: Text, here: Local, direction: Direction) -> None:
    """One level for the first character behind the common prefix, where more than one interface shares it."""
    root, flag = _DISPATCH[direction], "-o" if direction == "ingress" else "-i"
    groups: dict[str, list[str]] = {}
    for name in sorted(here.view.veths[pod.key] for pod in here.pods):
        groups.setdefault(name.removeprefix(_PREFIX)[0], []).append(name)
    for character, members in groups.items():
        chain = root
        if len(members) > 1:
            chain = f"{root}-{character}"
            text.rule(root, f"{flag} {_PREFIX}{character}+ -g {chain}")
        text.rule(chain, *(f"{flag} {name} -g {_WORKLOAD[direction]}{name}" for name in members))
        if chain != root:
            text.rule(chain, "-j DROP")
    text.rule(root, "-j DROP")


def _workload(text: Text, here: Local, pod: Pod, direction: Direction) -> None:
    chain = f"{_WORKLOAD[direction]}{here.view.veths[pod.key]}"
    text.rule(
        chain,
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate INVALID -j DROP",
        "-j MARK --set-xmark 0x0/0x10000",
    )
    if direction == "egress":
        text.rule(chain, "-p udp -m multiport --dports 4789 -j DROP", "-p 4 -j DROP")
    policies = here.selecting(pod, direction)
    if policies:
        text.rule(chain, f"-j MARK --set-xmark {_NO_PASS}")
        for policy in policies:
            text.rule(chain, f"-m mark --mark {_NO_PASS} -j {_name(policy, direction)}")
            text.rule(chain, f"-m mark --mark {_ACCEPT} -j RETURN")
        text.rule(chain, f"-m mark --mark {_NO_PASS} -j DROP")
    profile = f"cali-pr{direction[0]}-{short(pod.namespace)}"
    if not text.has(profile):
        text.rule(profile, f"-j MARK --set-xmark {_ACCEPT}", f"-m mark --mark {_ACCEPT} -j RETURN")
    text.rule(chain, f"-j {profile}", f"-m mark --mark {_ACCEPT} -j RETURN", "-j DROP")


def _policy(text: Text, here: Local, policy: NetworkPolicy, direction: Direction) -> None:
    chain, end = _name(policy, direction), "src" if direction == "ingress" else "dst"
    text.rule(chain)
    for rule in granted(policy, direction):
        for match in (each for peers in rule.peers for each in peer_matches(text, here, peers, end, "cali40")):
            for ports in rule.ports:
                text.rule(chain, joined(ports, match, f"-j MARK --set-xmark {_ACCEPT}"))
                text.rule(chain, f"-m mark --mark {_ACCEPT} -j RETURN")


def _name(policy: NetworkPolicy, direction: Direction) -> str:
    return f"{_SET[direction]}{short(policy.key)}"
