"""From the model back to a manifest, as a person would write it: what reading it again gives the same policy."""

from __future__ import annotations

from typing import Any

from policy.model import NetworkPolicy, Peer, Port, Rule
from policy.selector import KeyTest, Selector

_TYPES = {"ingress": "Ingress", "egress": "Egress"}


def manifest(policy: NetworkPolicy) -> dict[str, Any] | None:
    """The policy as an object of the API. None where it has a rule that was not understood: it can't be written."""
    if not all(rule.understood for rule in (*policy.ingress, *policy.egress)):
        return None
    spec: dict[str, Any] = {
        "podSelector": selector_tree(policy.subjects),
        "policyTypes": [_TYPES[direction] for direction in policy.isolates],
    }
    for direction, rules in (("ingress", policy.ingress), ("egress", policy.egress)):
        if rules:
            spec[direction] = [rule_tree(rule, direction) for rule in rules]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": policy.name, "namespace": policy.namespace},
        "spec": spec,
    }


def rule_tree(rule: Rule, direction: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if rule.peers:
        tree["from" if direction == "ingress" else "to"] = [peer_tree(peer) for peer in rule.peers]
    if rule.ports:
        tree["ports"] = [port_tree(port) for port in rule.ports]
    return tree


def peer_tree(peer: Peer) -> dict[str, Any]:
    if peer.block is not None:
        block: dict[str, Any] = {"cidr": str(peer.block.cidr)}
        if peer.block.excepts:
            block["except"] = [str(each) for each in peer.block.excepts]
        return {"ipBlock": block}
    tree = {}
    if peer.namespaces is not None:
        tree["namespaceSelector"] = selector_tree(peer.namespaces)
    if peer.pods is not None:
        tree["podSelector"] = selector_tree(peer.pods)
    return tree


def port_tree(port: Port) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if port.protocol != "TCP" or port.port is None:
        tree["protocol"] = port.protocol
    if port.port is not None:
        tree["port"] = port.port
        if port.end is not None and port.end != port.port:
            tree["endPort"] = port.end
    return tree


def selector_tree(selector: Selector) -> dict[str, Any]:
    if selector.is_nothing:
        pair = [{"key": "podfence.io/nothing", "operator": operator} for operator in ("Exists", "DoesNotExist")]
        return {"matchExpressions": pair}
    labels: dict[str, str] = {}
    expressions: list[dict[str, Any]] = []
    for test in selector.tests:
        if not test.absent and not test.inverted and len(test.values) == 1:
            labels[test.key] = test.values[0]
        else:
            expressions += _expressions(test)
    tree: dict[str, Any] = {}
    if labels:
        tree["matchLabels"] = labels
    if expressions:
        tree["matchExpressions"] = expressions
    return tree


def _expressions(test: KeyTest) -> list[dict[str, Any]]:
    if test.absent:
        if not test.inverted:
            return [{"key": test.key, "operator": "DoesNotExist"}]
        return [{"key": test.key, "operator": "NotIn", "values": list(test.values)}]
    if not test.inverted:
        return [{"key": test.key, "operator": "In", "values": list(test.values)}]
    found: list[dict[str, Any]] = [{"key": test.key, "operator": "Exists"}]
    if test.values:
        found.append({"key": test.key, "operator": "NotIn", "values": list(test.values)})
    return found
