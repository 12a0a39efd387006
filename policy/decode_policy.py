"""NetworkPolicy v1, from the untyped tree to the model: one reader gives the meaning and every problem with it.

Wrong input never widens access (semantics, row 34). The one mechanism: a rule in which anything was complained of is
not understood. What is not inside a rule isolates instead:

    policyTypes unreadable                  both directions
    a field unknown in spec or at the top   both directions, and no rule is understood
    anything wrong with metadata or kind    the same
    apiVersion not networking.k8s.io/v1     the same
    spec not a mapping                      both directions, of every pod of the namespace
    podSelector unreadable                  every pod of the namespace, and no rule is understood
    spec absent or null                     as the API server reads it: every pod, ingress, no rule, nothing wrong
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy.cidr import Prefix, parse_cidr
from policy.decode_selector import read_selector
from policy.labels import port_name_problem, quoted
from policy.model import DIRECTIONS, PROTOCOLS, Direction, IPBlock, NetworkPolicy, Peer, Port, Rule
from policy.selector import EVERYTHING
from policy.source import Path
from policy.validate import MAPPING, Report

API_VERSION = "networking.k8s.io/v1"
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_SPEC = ("podSelector", "policyTypes", "ingress", "egress")
_PEERS: dict[Direction, str] = {"ingress": "from", "egress": "to"}
_TYPES: dict[str, Direction] = {"Ingress": "ingress", "Egress": "egress"}
_NOT_UNDERSTOOD = Rule(understood=False)


def read_policy(tree: Mapping[str, Any], api_version: str, namespace: str, name: str, report: Report) -> NetworkPolicy:
    """The policy in `tree`, whatever is wrong with it; what is wrong goes to `report`, which may know something of its
    kind or metadata already: misfiled, its rules would open another namespace."""
    misfiled = bool(report)
    doubtful = report.unknown_fields(tree, (), _TOP) or misfiled
    if api_version != API_VERSION:
        doubtful = True
        report.say(("apiVersion",), f"{quoted(api_version)} is not read, expected {API_VERSION}")
    spec = tree.get("spec")
    if not isinstance(spec, MAPPING):
        if spec is not None:
            doubtful = True
            report.wrong_type(("spec",), spec, "a mapping")
        spec = {}
    doubtful |= report.unknown_fields(spec, ("spec",), _SPEC)

    said = len(report)
    subjects = read_selector(spec.get("podSelector"), ("spec", "podSelector"), report) or EVERYTHING
    grants = not doubtful and len(report) == said
    ingress, egress = (_rules(spec.get(direction), direction, report) for direction in DIRECTIONS)
    return NetworkPolicy(
        namespace=namespace,
        name=name,
        subjects=subjects,
        isolates=DIRECTIONS if doubtful else _isolates(spec, report),
        ingress=ingress if grants else (_NOT_UNDERSTOOD,) * len(ingress),
        egress=egress if grants else (_NOT_UNDERSTOOD,) * len(egress),
        source=report.source,
    )


def _isolates(spec: Mapping[str, Any], report: Report) -> tuple[Direction, ...]:
    """API text of policyTypes: absent, it is Ingress, and Egress too where there is any egress rule (row 5)."""
    path: Path = ("spec", "policyTypes")
    types = spec.get("policyTypes")
    if types is None or types == []:
        return ("ingress",) if spec.get("egress") in (None, []) else DIRECTIONS
    if not isinstance(types, list):
        report.wrong_type(path, types, "a list of Ingress, Egress")
        return DIRECTIONS
    unknown = [at for at, entry in enumerate(types) if not isinstance(entry, str) or entry not in _TYPES]
    for at in unknown:
        report.wrong_type((*path, at), types[at], "Ingress or Egress")
    if len(types) > len(_TYPES):
        report.say(path, f"{len(types)} entries, expected at most {len(_TYPES)}")
    if unknown:
        return DIRECTIONS
    return tuple(direction for name, direction in _TYPES.items() if name in types)


def _rules(value: Any, direction: Direction, report: Report) -> tuple[Rule, ...]:
    entries = report.mappings(value, ("spec", direction))
    return tuple(
        _NOT_UNDERSTOOD if entry is None else _rule(entry, path, _PEERS[direction], report) for path, entry in entries
    )


def _rule(value: Mapping[str, Any], path: Path, peers_field: str, report: Report) -> Rule:
    said = len(report)
    report.unknown_fields(value, path, (peers_field, "ports"))
    peers = report.mappings(value.get(peers_field), (*path, peers_field))
    ports = report.mappings(value.get("ports"), (*path, "ports"))
    rule = Rule(
        tuple(_peer(entry, at, report) for at, entry in peers if entry is not None),
        tuple(_port(entry, at, report) for at, entry in ports if entry is not None),
    )
    return rule if len(report) == said else _NOT_UNDERSTOOD


def _peer(value: Mapping[str, Any], path: Path, report: Report) -> Peer:
    report.unknown_fields(value, path, ("podSelector", "namespaceSelector", "ipBlock"))
    pods = read_selector(value.get("podSelector"), (*path, "podSelector"), report)
    namespaces = read_selector(value.get("namespaceSelector"), (*path, "namespaceSelector"), report)
    block = _block(value.get("ipBlock"), (*path, "ipBlock"), report)
    given = [field for field in value if value[field] is not None]
    if not given:
        report.say(path, "an empty peer, expected podSelector, namespaceSelector or ipBlock")
    elif "ipBlock" in given and len(given) > 1:
        report.say(path, "ipBlock beside a selector, expected one or the other")
    return Peer(pods, namespaces, block)


def _block(value: Any, path: Path, report: Report) -> IPBlock | None:
    if value is None:
        return None
    if not isinstance(value, MAPPING):
        report.wrong_type(path, value, "a mapping")
        return None
    report.unknown_fields(value, path, ("cidr", "except"))
    cidr = _cidr(value.get("cidr"), (*path, "cidr"), report)
    excepts = []
    for at, entry in report.items(value.get("except"), (*path, "except")):
        inner = _cidr(entry, at, report)
        if cidr and inner:
            excepts.append(inner)
            if not (cidr.contains(inner) and inner.length > cidr.length):
                report.say(at, f"{quoted(entry)} is not inside cidr, expected a smaller block within {cidr}")
    return IPBlock(cidr, tuple(excepts)) if cidr else None


def _cidr(value: Any, path: Path, report: Report) -> Prefix | None:
    expected = "a block such as 10.0.0.0/8 or fd00::/8"
    if value is None or value == "":
        report.say(path, f"missing, expected {expected}")
    elif not isinstance(value, str):
        report.wrong_type(path, value, expected)
    else:
        try:
            return parse_cidr(value)
        except ValueError:
            report.say(path, f"not a CIDR: {quoted(value)}, expected {expected}")
    return None


def _port(value: Mapping[str, Any], path: Path, report: Report) -> Port:
    report.unknown_fields(value, path, ("protocol", "port", "endPort"))
    protocol = next((known for known in PROTOCOLS if known == value.get("protocol", "TCP")), None)
    if protocol is None and value.get("protocol") is not None:
        report.wrong_type((*path, "protocol"), value["protocol"], "TCP, UDP or SCTP")
    port, end = value.get("port"), value.get("endPort")
    if isinstance(port, str):
        if reason := port_name_problem(port):
            report.say((*path, "port"), reason)
    elif port is not None:
        _number(port, (*path, "port"), "a number from 1 to 65535, or a port's name", report)
    if end is None:
        return Port(protocol or "TCP", port, port if isinstance(port, int) else None)
    if not isinstance(port, int):
        report.say((*path, "endPort"), "without a number in port, expected both or neither")
    elif _number(end, (*path, "endPort"), "a number from 1 to 65535", report) and end < port:
        report.say((*path, "endPort"), f"{end} is smaller than port, expected at least {port}")
    return Port(protocol or "TCP", port, end)


def _number(value: Any, path: Path, expected: str, report: Report) -> bool:
    good = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535
    if not good:
        report.wrong_type(path, value, expected)
    return good
