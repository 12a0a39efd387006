"""Our own rules, and none at all."""

from __future__ import annotations

from msgspec import Struct

from benchmarks.shapes.text import Text
from compiler.compile import Compiled
from enforcer.keeping import host
from enforcer.kernel.backend import Backend
from enforcer.rules.layout import NodeView


class Planned(Struct, frozen=True):
    compiled: Compiled
    view: NodeView

    def install(self, backend: Backend) -> None:
        for each in host.plans(backend, self.compiled, self.view):
            host.execute(backend, each.steps)


def podfence(compiled: Compiled, view: NodeView) -> Planned:
    return Planned(compiled, view)


def nothing(_compiled: Compiled, _view: NodeView) -> Text:
    """No policy engine. Flows are tracked, as they are on every node with kube-proxy."""
    text = Text()
    text.rule("FORWARD", "-m conntrack --ctstate ESTABLISHED -j ACCEPT")
    return text
