"""Which rules can be understood: those that the API server would store. Any other grants nothing (row 34)."""

from __future__ import annotations

from typing import Any

from tests.oracle.fields import Network, cidr, default

PROTOCOLS = ("TCP", "UDP", "SCTP")
PEERS = {"ingress": "from", "egress": "to"}


def readable_rule(rule: Any, direction: str) -> bool:
    peers_field = PEERS[direction]
    if not isinstance(rule, dict) or set(rule) - {peers_field, "ports"}:
        return False
    peers, ports = default(rule, peers_field, []), default(rule, "ports", [])
    lists = isinstance(peers, list) and isinstance(ports, list)
    return lists and all(map(_readable_peer, peers)) and all(map(_readable_port, ports))


def _readable_peer(peer: Any) -> bool:
    if not isinstance(peer, dict) or set(peer) - {"podSelector", "namespaceSelector", "ipBlock"}:
        return False
    selectors = [peer[field] for field in ("podSelector", "namespaceSelector") if peer.get(field) is not None]
    block = peer.get("ipBlock")
    if block is None:  # row 14: refused with nothing set
        return bool(selectors) and all(map(readable_selector, selectors))
    # "If this field is set then neither of the other fields can be."
    if selectors or not isinstance(block, dict) or set(block) - {"cidr", "except"}:
        return False
    excepts = default(block, "except", [])
    if not isinstance(excepts, list) or not all(map(_readable_cidr, [block.get("cidr"), *excepts])):
        return False
    # "Except values will be rejected if they are outside the cidr range"; nor may one be all of it.
    return all(_strictly_inside(cidr(each), cidr(block["cidr"])) for each in excepts)


def _readable_port(port: Any) -> bool:
    if not isinstance(port, dict) or set(port) - {"protocol", "port", "endPort"}:
        return False
    number, end = port.get("port"), port.get("endPort")
    if default(port, "protocol", "TCP") not in PROTOCOLS:
        return False
    if end is not None:  # "cannot be defined if the port field is not defined or if [it] is defined as a named port"
        return _is_port(number) and _is_port(end) and bool(number <= end)
    return number is None or _is_port(number) or _is_port_name(number)


def _is_port(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _is_port_name(value: Any) -> bool:
    """An IANA service name: at most 15 of a-z, 0-9 and single inner dashes, with a letter."""
    if not isinstance(value, str) or not 1 <= len(value) <= 15 or "--" in value or value.strip("-") != value:
        return False
    return set(value) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") and any(each.isalpha() for each in value)


def readable_selector(selector: Any) -> bool:
    if not isinstance(selector, dict) or set(selector) - {"matchLabels", "matchExpressions"}:
        return False
    wanted, expressions = default(selector, "matchLabels", {}), default(selector, "matchExpressions", [])
    if not isinstance(wanted, dict) or not all(map(_is_label_key, wanted)):
        return False
    if not all(map(_is_label_value, wanted.values())):
        return False
    return isinstance(expressions, list) and all(map(_readable_expression, expressions))


def _readable_expression(expression: Any) -> bool:
    if not isinstance(expression, dict) or set(expression) - {"key", "operator", "values"}:
        return False
    values, operator = default(expression, "values", []), expression.get("operator")
    if not isinstance(values, list) or not all(map(_is_label_value, values)):
        return False
    # "If the operator is In or NotIn, the values array must be non-empty. If [...] Exists or DoesNotExist, empty."
    takes_values = {"In": True, "NotIn": True, "Exists": False, "DoesNotExist": False}
    if not isinstance(operator, str) or operator not in takes_values:
        return False
    return _is_label_key(expression.get("key")) and takes_values[operator] == bool(values)


def _is_label_value(text: Any) -> bool:
    return isinstance(text, str) and (text == "" or _is_label_name(text))


def _is_label_key(text: Any) -> bool:
    prefix, slash, name = text.rpartition("/") if isinstance(text, str) else ("", "", "")
    return _is_label_name(name) and (not slash or _is_dns_name(prefix))


def _is_label_name(text: str) -> bool:
    """At most 63 of A-Z, a-z, 0-9, "-", "_" and ".", a letter or digit at both ends."""
    inner = text.replace("-", "a").replace("_", "a").replace(".", "a")
    return len(text) <= 63 and text.isascii() and inner.isalnum() and text[0].isalnum() and text[-1].isalnum()


def _is_dns_name(text: str) -> bool:
    parts = text.split(".")
    return len(text) <= 253 and text == text.lower() and "_" not in text and all(map(_is_label_name, parts))


def _strictly_inside(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.prefixlen > outer.prefixlen and inner.network_address in outer


def _readable_cidr(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    try:
        cidr(text)
    except ValueError:
        return False
    return True
