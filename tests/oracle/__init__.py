"""What a NetworkPolicy means, read off the API text and `semantics`, over plain API objects.

The slow twin of the engine: it shares nothing with `policy`, `compiler` or `enforcer`, keeps no index, and asks each
policy, rule, peer and port in turn, each time. Quotations are from the networking.k8s.io/v1 reference. "Row" is a row
of the table of meanings. An object that cannot be understood never widens: see `_Policy` and `readable_rule`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from tests.oracle.fields import (
    NAME_LABEL,
    Address,
    Object,
    cidr,
    container_ports,
    default,
    finished,
    flat,
    is_pod,
    labels,
    name_of,
    namespace,
    node_addresses,
    node_of,
    pod_addresses,
)
from tests.oracle.readable import PEERS, readable_rule, readable_selector


@dataclass(frozen=True)
class End:
    """One end of a flow: an address, and the pod ("namespace/name") that uses it where that is said."""

    address: str
    pod: str = ""


@dataclass(frozen=True)
class Flow:
    """`protocol` is TCP, UDP, SCTP or one without ports, such as ICMP."""

    src: End
    dst: End
    protocol: str
    port: int

    def __str__(self) -> str:
        ends = [f"{end.pod}[{end.address}]" if end.pod else end.address for end in (self.src, self.dst)]
        return f"{ends[0]} -> {ends[1]} {self.protocol}/{self.port}"


@dataclass(frozen=True)
class Half:
    """One direction's answer and its reasons: the policies that isolate, and what admits, as policy and number of the
    rule, of its peer and of its port (None where the rule has no such list). Nothing need admit what comes from the
    pod itself or its node."""

    allowed: bool
    isolating: frozenset[str] = frozenset()
    admitting: frozenset[tuple[str, int, int | None, int | None]] = frozenset()


@dataclass(frozen=True)
class _Who:
    """Who is at an address: a pod that policies know, a node, or neither."""

    address: Address
    pod: Object | None
    node: str


class Oracle:
    """One cluster. `verdict` gives (ingress allows, egress allows); the flow passes when both do (row 3)."""

    def __init__(self, objects: list[Object]) -> None:
        every = list(flat(objects))
        self.policies = [_Policy(each) for each in every if each["kind"] == "NetworkPolicy"]
        self.nodes = [each for each in every if each["kind"] == "Node"]
        self.pods = [each for each in every if each["kind"] == "Pod"]
        self.namespaces = {name_of(each): labels(each) for each in every if each["kind"] == "Namespace"}

    def verdict(self, flow: Flow, node_egress: str = "enforce") -> tuple[bool, bool]:
        ingress, egress = self.halves(flow, node_egress)
        return ingress.allowed, egress.allowed

    def halves(self, flow: Flow, node_egress: str = "enforce") -> tuple[Half, Half]:
        """Ingress and egress."""
        src, dst = self._who(flow.src), self._who(flow.dst)
        own_node_may = (True, node_egress == "allow")  # rows 27 and 28
        return (
            self._half("ingress", dst, src, dst, flow, own_node_may[0]),
            self._half("egress", src, dst, dst, flow, own_node_may[1]),
        )

    def _half(self, direction: str, subject: _Who, peer: _Who, dst: _Who, flow: Flow, own_node_may: bool) -> Half:
        if subject.pod is None:
            return Half(True)
        # "traffic is allowed to a pod if there are no NetworkPolicies selecting the pod" (row 1)
        policies = [policy for policy in self.policies if direction in policy.isolates and policy.selects(subject.pod)]
        isolating = frozenset(policy.key for policy in policies)
        own_node = own_node_may and peer.node and peer.node == node_of(subject.pod)
        if not policies or peer.pod is subject.pod or own_node:  # row 29
            return Half(True, isolating)
        # "OR if the traffic matches at least one ingress rule across all of the NetworkPolicy objects" (row 2)
        admitting = frozenset(
            (policy.key, number, peer_number, port_number)
            for policy in policies
            for number, rule in policy.rules[direction]
            for port_number in _ports_matching(rule.get("ports"), dst, flow)
            for peer_number in self._peers_matching(rule.get(PEERS[direction]), policy, peer)
        )
        return Half(bool(admitting), isolating, admitting)

    def _peers_matching(self, peers: list[Object] | None, policy: _Policy, peer: _Who) -> list[int | None]:
        # "If this field is empty or missing, this rule matches all sources" (row 9)
        if not peers:
            return [None]
        return [number for number, each in enumerate(peers) if self._peer_matches(each, policy, peer)]

    def _peer_matches(self, entry: Object, policy: _Policy, peer: _Who) -> bool:
        block = entry.get("ipBlock")
        if block is not None:
            inside = peer.address in cidr(block["cidr"])
            return inside and not any(peer.address in cidr(text) for text in block.get("except") or ())
        pods, namespaces = entry.get("podSelector"), entry.get("namespaceSelector")
        if peer.pod is None or (pods is None and namespaces is None):  # row 14
            return False
        if namespaces is None:
            in_scope = namespace(peer.pod) == policy.namespace
        else:
            name = namespace(peer.pod)
            in_scope = selects(namespaces, {**self.namespaces.get(name, {}), NAME_LABEL: name})  # rows 36, 37
        return in_scope and (pods is None or selects(pods, labels(peer.pod)))

    def _who(self, end: End) -> _Who:
        address = ip_address(end.address)
        for pod in self.pods:
            if end.pod == f"{namespace(pod)}/{name_of(pod)}":
                if is_pod(pod):
                    return _Who(address, pod, "")
                if not finished(pod):  # row 23: it is the node
                    return _Who(address, None, node_of(pod))
        for pod in self.pods:
            if not finished(pod) and address in pod_addresses(pod):
                return _Who(address, pod, "") if is_pod(pod) else _Who(address, None, node_of(pod))
        for node in self.nodes:
            if address in node_addresses(node):
                return _Who(address, None, name_of(node))
        return _Who(address, None, "")


class _Policy:
    """Which pods it selects, which directions it isolates, and the rules that grant.

    What cannot be understood (row 34): inside a rule, the rule grants nothing; a policy type, both directions are
    isolated; podSelector, the whole namespace is isolated and nothing granted; any other field, both directions are
    isolated and nothing is granted."""

    def __init__(self, policy: Object) -> None:
        self.namespace = namespace(policy)
        self.key = f"{self.namespace}/{name_of(policy)}"
        spec = policy.get("spec")
        spec = {} if spec is None else spec
        known = (
            policy["apiVersion"] == "networking.k8s.io/v1"
            and isinstance(spec, dict)
            and not set(policy) - {"apiVersion", "kind", "metadata", "spec", "status"}
            and not set(spec) - {"podSelector", "policyTypes", "ingress", "egress"}
        )
        spec = spec if isinstance(spec, dict) else {"podSelector": "unreadable"}
        selector = spec.get("podSelector")
        self.selector = {} if selector is None else selector  # row 4
        self.selector_readable = readable_selector(self.selector)
        self.isolates = _isolates(spec) if known else ("ingress", "egress")
        self.rules: dict[str, list[tuple[int, Object]]] = {"ingress": [], "egress": []}
        if known and self.selector_readable:
            for direction, granted in self.rules.items():
                rules = spec.get(direction)
                if isinstance(rules, list):
                    granted += [each for each in enumerate(rules) if readable_rule(each[1], direction)]

    def selects(self, pod: Object) -> bool:
        if namespace(pod) != self.namespace:
            return False
        return not self.selector_readable or selects(self.selector, labels(pod))


def _isolates(spec: Object) -> tuple[str, ...]:
    """ "Policies that contain an egress section are assumed to affect egress, and all policies (whether or not they
    contain an ingress section) are assumed to affect ingress", if policyTypes says nothing (row 5)."""
    types = spec.get("policyTypes")
    if types is None or types == []:
        return ("ingress",) if spec.get("egress") in (None, []) else ("ingress", "egress")
    if not isinstance(types, list) or any(each not in ("Ingress", "Egress") for each in types):
        return ("ingress", "egress")
    return tuple(each.lower() for each in types)


def _ports_matching(ports: list[Object] | None, dst: _Who, flow: Flow) -> list[int | None]:
    # "If this field is empty or missing, this rule matches all ports (traffic not restricted by port)" (row 10)
    if not ports:
        return [None]
    return [number for number, each in enumerate(ports) if _port_matches(each, dst, flow)]


def _port_matches(entry: Object, dst: _Who, flow: Flow) -> bool:
    if default(entry, "protocol", "TCP") != flow.protocol:  # row 18; no ICMP here (row 22)
        return False
    port = entry.get("port")
    if port is None:
        return True
    if isinstance(port, int):
        return bool(port <= flow.port <= default(entry, "endPort", port))
    return dst.pod is not None and any(
        each.get("name") == port
        and default(each, "protocol", "TCP") == flow.protocol
        and each["containerPort"] == flow.port
        for each in container_ports(dst.pod)
    )


def selects(selector: Object, having: dict[str, str]) -> bool:
    """ "The result of matchLabels and matchExpressions are ANDed"; an empty selector selects everything."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return all(having.get(key) == value for key, value in wanted.items()) and all(
        _expression_holds(each, having) for each in expressions
    )


def _expression_holds(expression: Object, having: dict[str, str]) -> bool:
    key, operator = expression["key"], expression["operator"]
    if operator == "In":
        return key in having and having[key] in expression["values"]
    if operator == "NotIn":  # row 15
        return not (key in having and having[key] in expression["values"])
    return bool((key in having) == (operator == "Exists"))
