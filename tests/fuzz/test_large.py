"""Objects as large as somebody can make them, and larger: read or refused in bounded time and memory, and closed."""

from __future__ import annotations

import json
import resource
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from compiler.compile import compile_cluster
from enforcer.cluster.resources import PODS, POLICIES
from enforcer.cluster.watch_wire import read_event
from enforcer.rules.layout import NodeView, layout
from enforcer.rules.render import rule_text
from policy.cidr import parse_cidr
from policy.decode import decode_objects, read_documents
from policy.errors import UnreadableInput
from policy.model import NetworkPolicy, Pod

# Loose: the machine may be shared. The largest takes some three seconds of CPU.
SECONDS, MEGABYTES = 20.0, 700
MANY = 100_000


@contextmanager
def bounded() -> Iterator[None]:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10 < MEGABYTES


def policy(**spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "s"}
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta}
    return {**head, "spec": {"podSelector": {}, "policyTypes": ["Ingress"], **spec}}


def expressions() -> list[dict[str, Any]]:
    return [{"key": f"k{number}", "operator": "NotIn", "values": ["v"]} for number in range(MANY)]


LARGE: dict[str, Callable[[], dict[str, Any]]] = {
    "expressions of the subject": lambda: policy(podSelector={"matchExpressions": expressions()}),
    "expressions of a peer": lambda: policy(ingress=[{"from": [{"podSelector": {"matchExpressions": expressions()}}]}]),
    "an expression's values": lambda: policy(
        podSelector={"matchExpressions": [{"key": "a", "operator": "In", "values": [f"v{n}" for n in range(MANY)]}]}
    ),
    "labels": lambda: policy(podSelector={"matchLabels": {f"k{number}": "v" for number in range(MANY)}}),
    "a name": lambda: policy() | {"metadata": {"name": "p", "namespace": "s", "annotations": {"x": "y" * (10 << 20)}}},
    "peers": lambda: policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"a": f"{n}"}}} for n in range(MANY)]}]),
}


@pytest.mark.parametrize("what", LARGE)
def test_a_policy_that_is_large_isolates(what: str) -> None:
    line = json.dumps({"type": "ADDED", "object": LARGE[what]()}).encode()
    with bounded():
        news = read_event(POLICIES, line).news
        assert news and isinstance(news.event, NetworkPolicy) and "ingress" in news.event.isolates


def test_a_pod_of_ten_megabytes() -> None:
    tree = {
        "metadata": {"name": "p", "namespace": "s", "uid": "u", "annotations": {"x": "y" * (10 << 20)}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    }
    with bounded():
        news = read_event(PODS, json.dumps({"type": "ADDED", "object": tree}).encode()).news
        assert news and isinstance(news.event, Pod)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "x: " + "[" * MANY,
        "x: " + "{a: " * MANY,
        "- " * MANY,
        "? " * MANY,
        "kind: Pod\nmetadata: {name: " + "\\" * MANY + "}",
        "x: &a {" + ", ".join(f"k{n}: 1" for n in range(MANY // 10)) + "}\ny: {<<: [" + ", ".join(["*a"] * 5000) + "]}",
    ],
    ids=["bomb", "brackets", "braces", "dashes", "keys", "escapes", "merges"],
)
def test_yaml_that_explodes_is_refused_or_read(text: str) -> None:
    with bounded():
        try:
            read_documents(text.encode(), "f")
        except UnreadableInput as error:
            assert str(error).startswith("f:") and len(str(error)) < 500


_TARGETS = ("RETURN", "DROP", "REJECT", "NFLOG")
NASTY = (
    'x" -j ACCEPT',
    "x\n-A PODFENCE-FORWARD -j RETURN",
    "x'; reboot; '",
    "$(reboot)",
    "\x1b[2J",
    "x\0y",
    "../../etc",
    "\u202egpj.exe",
    "x" * 5000,
    "-A",
    "pf-4-known",
    "%s%n",
)


@pytest.mark.parametrize("nasty", NASTY, ids=[f"{number}" for number in range(len(NASTY))])
def test_no_text_of_the_cluster_gets_into_rules_as_it_is(nasty: str) -> None:
    """As name, namespace, label, annotation, node, port, CIDR, UID: what comes of it are rules of podfence's own words,
    one a line, and sets and chains with names that the kernel takes."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "uid": nasty, "labels": {"app": nasty, nasty: "x"}},
        "spec": {"nodeName": "n1", "containers": [{"name": nasty, "ports": [{"name": nasty, "containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": nasty}]},
    }
    named = {**pod, "metadata": {"name": nasty, "namespace": nasty, "labels": {}}}
    rules = policy(
        podSelector={"matchLabels": {"app": nasty}},
        ingress=[
            {"from": [{"ipBlock": {"cidr": nasty}}], "ports": [{"port": nasty}]},
            {"from": [{"podSelector": {"matchLabels": {nasty: nasty}}}], "ports": [{"port": 80, "protocol": nasty}]},
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": [nasty]}}]},
        ],
    )
    odd = policy() | {"metadata": {"name": nasty, "namespace": "shop"}}
    decoded = decode_objects([pod, named, rules, odd])
    assert all(str(problem).isprintable() for problem in decoded.problems)
    view = NodeView("n1", {found.key: "veth1" for found in decoded.cluster.pods}, (parse_cidr("10.0.0.0/24"),))
    ruleset = layout(compile_cluster(decoded.cluster), view, 4)
    for name, chain in ruleset.chains.items():
        assert len(name) <= 28 and name.isascii() and name.replace("-", "").isalnum()
        for rule in chain:
            text = rule_text(rule)
            assert text.isprintable() and text.isascii()
            words = shlex.split(text)
            targets = [words[at + 1] for at, word in enumerate(words) if word in ("-j", "-g")]
            assert all(target in _TARGETS or target.startswith(("PODFENCE-", "PF-")) for target in targets), text
    for name in ruleset.sets:
        assert len(name) <= 31 and name.isascii() and name.replace("-", "").isalnum()
