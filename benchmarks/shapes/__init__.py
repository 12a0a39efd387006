"""The rules that other engines would make of the same policies, beside ours, so that all are measured in one run.

Each is written from what is publicly known of the engine's rules, for routed pods and IPv4, and with nothing that is
not needed for the verdict: of bridges, of encapsulation, of policies that select no pod of the node. So they are
smaller than what the engine itself installs. Tests prove that all give the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from benchmarks.shapes.calico import calico
from benchmarks.shapes.kube_router import kube_router
from benchmarks.shapes.podfence import nothing, podfence
from benchmarks.shapes.weave import weave
from compiler.compile import Compiled
from enforcer.kernel.backend import Backend
from enforcer.rules.layout import NodeView


class Rules(Protocol):
    def install(self, backend: Backend) -> None:
        """Puts the rules into the namespace of the thread, which holds none. KernelRejected where it can't be."""


Shape = Callable[[Compiled, NodeView], Rules]
NOTHING: Shape = nothing
SHAPES: dict[str, Shape] = {"podfence": podfence, "calico": calico, "kube-router": kube_router, "weave-npc": weave}
