"""Random policies over few labels, ports and blocks; some of them broken."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.generate.blocks import block
from tests.generate.broken import BROKEN_POLICIES, BROKEN_RULES
from tests.generate.words import KEYS, NAMESPACES, NUMBERS, PORT_NAMES, PROTOCOLS, VALUES
from tests.oracle.fields import Object


def policy(rng: Random, namespace: str, name: str, anchors: list[str]) -> Object:
    spec: Object = {}
    if rng.random() < 0.95:
        spec["podSelector"] = selector(rng)
    types = rng.choice((None, None, [], ["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Egress", "Ingress"], ...))
    if types is not ...:
        spec["policyTypes"] = types
    for direction in ("ingress", "egress"):
        if rng.random() < 0.75:
            spec[direction] = [rule(rng, direction, anchors) for _ in range(rng.choice((0, 1, 1, 2, 3)))] or None
        elif rng.random() < 0.3:
            spec[direction] = []
    made = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    if rng.random() < 0.05:
        rng.choice(BROKEN_POLICIES)(made)
    return made


def selector(rng: Random, keys: tuple[str, ...] = KEYS) -> Object:
    """Every operator; often empty, sometimes contradictory."""
    found: Object = {}
    if rng.random() < 0.35:
        return found
    if rng.random() < 0.5:
        found["matchLabels"] = {rng.choice(keys): rng.choice(VALUES) for _ in range(rng.choice((1, 1, 2)))}
    if rng.random() < 0.6:
        found["matchExpressions"] = []
        for _ in range(rng.choice((1, 1, 2))):
            operator = rng.choice(("In", "NotIn", "Exists", "DoesNotExist"))
            each: Object = {"key": rng.choice(keys), "operator": operator}
            if operator.endswith("In"):
                each["values"] = rng.sample(VALUES, rng.choice((1, 1, 2)))
            found["matchExpressions"].append(each)
    return found


def rule(rng: Random, direction: str, anchors: list[str]) -> Any:
    """One entry of `ingress` or `egress`; about one in fifteen is broken somewhere."""
    field = "from" if direction == "ingress" else "to"
    found: Object = {}
    if rng.random() < 0.8:
        found[field] = [_peer(rng, anchors) for _ in range(_many(rng))]
    if rng.random() < 0.65:
        found["ports"] = _wide_ports(rng) if rng.random() < 0.05 else [_port(rng) for _ in range(_many(rng))]
    if rng.random() < 0.07:
        broken = rng.choice(BROKEN_RULES)
        return broken(found, field)
    return found


def _peer(rng: Random, anchors: list[str]) -> Object:
    if rng.random() < 0.4:
        return {"ipBlock": block(rng, anchors)}
    fields = rng.choice((("podSelector",), ("namespaceSelector",), ("podSelector", "namespaceSelector")))
    found = {field: selector(rng) for field in fields}
    if "namespaceSelector" in found and rng.random() < 0.25:
        found["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": rng.choice(NAMESPACES)}}
    return found


def _many(rng: Random) -> int:
    """How many entries a list has: now and then more than any one kernel rule or small set takes."""
    return rng.randint(8, 20) if rng.random() < 0.02 else rng.choice((0, 1, 1, 2, 3))


def _wide_ports(rng: Random) -> list[Object]:
    """Ports and short ranges of one protocol that do not touch: more than one kernel rule can match."""
    protocol = rng.choice(PROTOCOLS)
    found = [{"port": low, "endPort": low + rng.randint(0, 1)} for low in rng.sample(range(1000, 1100, 3), 18)]
    return [{"protocol": protocol, **each} for each in found]


def _port(rng: Random) -> Object:
    found: Object = {}
    if rng.random() < 0.75:
        found["protocol"] = rng.choice(PROTOCOLS)
    kind = rng.random()
    if kind < 0.4:
        found["port"] = rng.choice(NUMBERS)
    elif kind < 0.65:
        found["port"] = rng.choice(PORT_NAMES)
    elif kind < 0.85:
        low, high = sorted((rng.choice(NUMBERS), rng.choice(NUMBERS)))
        found |= {"port": low, "endPort": high}
    return found
