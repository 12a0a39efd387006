"""Three answers to one question: the oracle's, the verdict's, and the simulated rules'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from compiler.verdict import NodeEgress
from tests.engine import Engine
from tests.generate import cluster, flows
from tests.oracle import Flow, Half, Oracle
from tests.oracle.fields import Object

FLOWS_A_CLUSTER = 250


@dataclass(frozen=True)
class Mismatch:
    """`oracle` and `verdict` are ingress and egress with their reasons; `rules` is whether the packet passes."""

    flow: Flow
    node_egress: NodeEgress
    oracle: tuple[Half, Half]
    verdict: tuple[Half, Half]
    rules: bool

    @property
    def answers(self) -> tuple[bool, ...]:
        """Without the reasons."""
        return (*(half.allowed for half in (*self.oracle, *self.verdict)), self.rules)

    def __str__(self) -> str:
        lines = [f"{self.flow} (node egress: {self.node_egress})"]
        for who, halves in (("oracle", self.oracle), ("verdict", self.verdict)):
            lines += [f"  {who} {name}: {half}" for name, half in zip(("ingress", "egress"), halves, strict=True)]
        return "\n".join([*lines, f"  rules: {'passes' if self.rules else 'denied'}"])


def mismatches(objects: list[Object], asked: list[Flow], node_egress: NodeEgress = "enforce") -> Iterator[Mismatch]:
    """The flows on which the three do not agree, on the answer or on its reasons."""
    oracle, engine = Oracle(objects), Engine(objects, node_egress)
    for flow in asked:
        said, answered, rules = oracle.halves(flow, node_egress), engine.halves(flow), engine.simulated(flow)
        if said != answered or all(half.allowed for half in said) != rules:
            yield Mismatch(flow, node_egress, said, answered, rules)


def case(seed: int, count: int = FLOWS_A_CLUSTER) -> tuple[list[Object], list[Flow], NodeEgress]:
    """The cluster, flows and option that `seed` names."""
    rng = Random(seed)
    objects = cluster(rng)
    return objects, flows(rng, objects, count), "allow" if rng.random() < 0.2 else "enforce"
