"""Real packets for the flows of a case: its pods as namespaces of a lab, its policies in the kernel of each node.

Cases with the same pods share a lab, where only rules change. Pods are dealt out to two nodes, so that flows within
a node and between nodes both occur; a verdict between pods does not depend on that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from itertools import count, cycle
from typing import Self

from compiler.compile import compile_cluster
from enforcer.keeping.host import cleanup, execute, plans
from enforcer.kernel.backend import Backend, Mode
from enforcer.rules.layout import NodeView, local_pods
from lab import netns
from lab.cluster import Lab
from lab.probe import Outcome, Probe
from policy.cidr import parse_address
from policy.decode import decode_objects
from policy.model import Protocol
from tests.conformance.tables import FAMILIES, Case, Expected, Family, dual, flow
from tests.oracle.fields import Object, flat, name_of, namespace

MODES: tuple[Mode, Mode] = ("legacy", "nft")
NODES = ("node-1", "node-2")
# A port that nobody listens on refuses, which takes a packet that arrived.
PASSED = (Outcome.OPEN, Outcome.REFUSED)
_numbers = count()


class Packets:
    """Keeps one lab up for as long as the cases that come have its pods."""

    def __init__(self) -> None:
        self._lab: Lab | None = None
        self._key: object = None
        self._mode: Mode | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._exits.close()

    def wrong(
        self, case: Case, modes: Sequence[Mode] = MODES, families: Sequence[Family] = FAMILIES
    ) -> Iterator[tuple[Expected, str]]:
        """Each verdict that some packet contradicts, once, and what became of the packet."""
        objects = spread_out(dual(case.objects))
        lab = self._lab_for(objects)
        asked = [(expected, family) for expected in case.expected for family in families]
        probes = [_probe(objects, *each) for each in asked]
        missed: dict[Expected, str] = {}
        # First the backend that the last case left in force: a change of backends costs more than all probes.
        for mode in sorted(modes, key=lambda mode: mode != self._mode):
            self._mode = mode
            enforce(lab, mode, objects)
            for (expected, family), result in zip(asked, lab.probe(probes), strict=True):
                if (result.outcome in PASSED) != expected.passes:
                    missed.setdefault(expected, f"IPv{family} {mode}: the packet was {result.outcome}")
        yield from missed.items()

    def _lab_for(self, objects: list[Object]) -> Lab:
        """Labels are no business of a lab's: they may differ."""
        pods = [each for each in objects if each["kind"] == "Pod"]
        key = [(namespace(pod), name_of(pod), pod["status"], pod["spec"]) for pod in pods]
        if self._lab is None or key != self._key:
            self._exits.close()
            self._lab = self._exits.enter_context(Lab(lab_name(), decode_objects(pods).cluster))
            self._key = key
        return self._lab


def enforce(lab: Lab, mode: Mode, objects: list[Object]) -> None:
    """The rules of `objects` on every node, in this backend only; no connection is remembered."""
    compiled = compile_cluster(decode_objects(objects).cluster)
    for node in lab.cluster.nodes:
        links = {pod.key: lab.host(pod.key).link for pod in local_pods(compiled, node.name)}
        view = NodeView(node.name, links, node.pod_cidrs)
        with netns.inside(lab.host(node.name).netns):
            for other in MODES:
                if other != mode:
                    cleanup(Backend(other, FAMILIES))
            backend = Backend(mode, FAMILIES)
            for family_plan in plans(backend, compiled, view):
                execute(backend, family_plan.steps)
        lab.run(node.name, ["conntrack", "-F"])


def lab_name() -> str:
    """One that nobody else has, in a parallel process neither."""
    return f"conf-{os.getpid()}-{next(_numbers)}"


def spread_out(objects: list[Object]) -> list[Object]:
    """`objects` with the pods on both nodes in turn."""
    dealt = deepcopy(list(flat(objects)))
    nodes = cycle(NODES)
    for each in dealt:
        if each["kind"] == "Pod":
            each["spec"]["nodeName"] = next(nodes)
    return dealt


def _probe(objects: list[Object], expected: Expected, family: Family) -> Probe:
    asked = flow(objects, expected, family)
    protocol: dict[str, Protocol] = {"TCP": "TCP", "UDP": "UDP", "SCTP": "SCTP"}
    dst = asked.dst.pod or parse_address(asked.dst.address)
    return Probe(asked.src.pod, dst, protocol[asked.protocol], asked.port, family)
