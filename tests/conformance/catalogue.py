"""A truth table of our own: kinds of peers × kinds of ports × directions, every expectation written down by hand.

Nine pods, a to c in the namespaces x, y and z, as upstream's cases have them; the subject is x/a, and policies open
it to `peers` on `ports`. A flow passes in its direction if its other end is among the peers and its port among the
ports; nobody else is isolated. `*` stands for all, as in `upstream`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import yaml

from tests.conformance.tables import Case, Expected
from tests.conformance.upstream import ADDRESSES, NAMESPACES, SERVED, pod_object
from tests.oracle.fields import Object

SUBJECT = "x/a"
OTHERS = tuple(pod for pod in ADDRESSES if pod != SUBJECT)
# The YAML of `from` or `to`, and whom it means. x/* are 10.20.0.1 to .3, y/* 10.20.1.1 to .3, z/* 10.20.2.1 to .3.
PEERS = {
    "null": "*",
    "[]": "*",
    "[{podSelector: {}}]": "x/*",
    "[{podSelector: {matchLabels: {pod: b}}}]": "x/b",
    "[{podSelector: {matchLabels: {pod: nobody}}}]": "",
    "[{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b, c]}]}}]": "x/b x/c",
    "[{podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [b]}]}}]": "x/c",
    "[{podSelector: {matchExpressions: [{key: pod, operator: Exists}]}}]": "x/*",
    "[{podSelector: {matchExpressions: [{key: pod, operator: DoesNotExist}]}}]": "",
    "[{podSelector: {matchExpressions: [{key: colour, operator: DoesNotExist}]}}]": "x/*",
    "[{podSelector: {matchExpressions: [{key: colour, operator: NotIn, values: [red]}]}}]": "x/*",
    "[{namespaceSelector: {}}]": "*",
    "[{namespaceSelector: {matchLabels: {ns: y}}}]": "y/*",
    "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]": "z/*",
    "[{namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [y, z]}]}}]": "y/* z/*",
    "[{namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [y]}]}}]": "x/* z/*",
    "[{namespaceSelector: {}, podSelector: {}}]": "*",
    "[{namespaceSelector: {}, podSelector: {matchLabels: {pod: c}}}]": "x/c y/c z/c",
    "[{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]": "y/b",
    "[{namespaceSelector: {matchLabels: {ns: y}}}, {podSelector: {matchLabels: {pod: b}}}]": "y/* x/b",
    "[{podSelector: {matchLabels: {pod: b}}}, {podSelector: {matchLabels: {pod: c}}}]": "x/b x/c",
    "[{ipBlock: {cidr: 0.0.0.0/0}}]": "*",
    "[{ipBlock: {cidr: 10.20.1.0/24}}]": "y/*",
    "[{ipBlock: {cidr: 10.20.1.3/32}}]": "y/c",
    "[{ipBlock: {cidr: 10.20.1.2/31}}]": "y/b y/c",
    "[{ipBlock: {cidr: 10.20.0.0/16, except: [10.20.1.0/24]}}]": "x/* z/*",
    "[{ipBlock: {cidr: 10.20.0.0/16, except: [10.20.1.2/32, 10.20.2.0/30]}}]": "x/* y/a y/c",
    "[{ipBlock: {cidr: 10.20.0.0/16, except: [10.20.1.0/24]}}, {ipBlock: {cidr: 10.20.1.2/32}}]": "x/* z/* y/b",
    "[{ipBlock: {cidr: 10.20.0.0/16, except: [10.20.0.0/23]}}, {podSelector: {}}]": "z/* x/*",
    "[{ipBlock: {cidr: 203.0.113.0/24}}]": "",
}
# The YAML of `ports`, and which of those that pods serve it means.
PORTS = {
    "null": "*",
    "[]": "*",
    "[{protocol: TCP}]": "TCP/80 TCP/81",
    "[{protocol: UDP}]": "UDP/80 UDP/81",
    "[{port: 80}]": "TCP/80",
    "[{port: 81, protocol: UDP}]": "UDP/81",
    "[{port: 80, protocol: SCTP}]": "SCTP/80",
    "[{port: 79}]": "",
    "[{port: serve-80-tcp}]": "TCP/80",
    "[{port: serve-81-udp, protocol: UDP}]": "UDP/81",
    "[{port: serve-81-udp}]": "",
    "[{port: serve-80-sctp, protocol: SCTP}]": "SCTP/80",
    "[{port: nobody}]": "",
    "[{port: 79, endPort: 80}]": "TCP/80",
    "[{port: 80, endPort: 81}]": "TCP/80 TCP/81",
    "[{port: 81, endPort: 65535, protocol: UDP}]": "UDP/81",
    "[{port: 80}, {port: 81, protocol: UDP}]": "TCP/80 UDP/81",
    "[{port: 80}, {port: serve-81-tcp}, {protocol: SCTP}]": "TCP/80 TCP/81 SCTP/80 SCTP/81",
}
# What a policy, or two of them, in the namespace x mean for x/a: peers by direction, * or nobody.
WHOLE = {
    "{podSelector: {}}": {"ingress": ""},
    "{podSelector: {matchLabels: {pod: b}}}": {},
    "{podSelector: {}, policyTypes: [Egress]}": {"egress": ""},
    "{podSelector: {}, policyTypes: [Ingress, Egress]}": {"ingress": "", "egress": ""},
    "{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}]}": {"ingress": "*", "egress": ""},
    "{podSelector: {}, egress: [{}]}": {"ingress": "", "egress": "*"},
    "{podSelector: {}, policyTypes: [Egress], ingress: []}": {"egress": ""},
    "{podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [b, c]}]}}": {"ingress": ""},
}


def cases() -> Iterator[Case]:
    """Every peers with every ports, both directions; then whole policies."""
    for (peers, who), (ports, which) in product(PEERS.items(), PORTS.items()):
        for direction, field in (("ingress", "from"), ("egress", "to")):
            rule = {field: yaml.safe_load(peers), "ports": yaml.safe_load(ports)}
            spec = {"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": [direction.title()], direction: [rule]}
            yield _case(f"{direction} {field}: {peers} ports: {ports}", spec, {direction: who}, _ports(which))
    for text, opened in WHOLE.items():
        yield _case(text, yaml.safe_load(text), opened, set(SERVED))


def _case(name: str, spec: Any, opened: dict[str, str], ports: set[tuple[str, int]]) -> Case:
    """x/a, isolated in the directions of `opened`, is open there to those that it names, on `ports`."""
    among = {direction: _pods(who) for direction, who in opened.items()}
    expected = []
    for other, (protocol, port) in product(OTHERS, SERVED):
        into, out = (
            direction not in among or (other in among[direction] and (protocol, port) in ports)
            for direction in ("ingress", "egress")
        )
        # The other pods of the namespace are selected too where the selector is wider than x/a: not looked at.
        expected.append(Expected(other, SUBJECT, protocol, port, into, True))
        expected.append(Expected(SUBJECT, other, protocol, port, True, out))
    seen = [each for each in expected if not _isolates_others(spec, each)]
    return Case(name, tuple(opened), _objects(spec), tuple(seen))


def _isolates_others(spec: Any, each: Expected) -> bool:
    wide = spec["podSelector"] != {"matchLabels": {"pod": "a"}}
    return wide and all(pod.startswith("x/") for pod in (each.src, each.dst))


def _pods(text: str) -> set[str]:
    return {pod for pod in OTHERS for each in text.split() if each in ("*", pod, f"{pod[0]}/*")}


def _ports(text: str) -> set[tuple[str, int]]:
    return {served for served in SERVED if text == "*" or f"{served[0]}/{served[1]}" in text.split()}


def _objects(spec: Any) -> list[Object]:
    spaces: list[Object] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": {"ns": space}}}
        for space in NAMESPACES
    ]
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "policy", "namespace": "x"},
        "spec": spec,
    }
    return [*spaces, *(pod_object(pod, {}) for pod in ADDRESSES), policy]
