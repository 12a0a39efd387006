"""What the loop publishes: one immutable picture of the agent, replaced whole, which any thread may read."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from enforcer.keeping.family import FamilyCounts
from policy.cidr import Family

Phase = Literal["starting", "enforcing", "failing", "stopping"]


class AgentStatus(Struct, frozen=True, kw_only=True):
    """`phase`: `starting` until every kind was heard of and the rules followed once; `failing` while the kernel
    refuses. `waits_for` is what readiness waits for, a line each. `opened` is who opened the
    node and why, "" where it is not open. `problems` are objects that can't be understood, `weaknesses` ways
    around enforcement that this host leaves, `unattached` local pods that
    stay closed, with the reason. `stale` is for how long, in seconds, the worst watch has heard nothing that can be
    relied on; addresses in sets may be as old. `defects` counts what went wrong in podfence itself; `quarantined` are
    the objects that it tripped over, and `too_large` the policies beyond the budget: both are closed."""

    version: str
    node: str
    backend: str
    mode: str
    phase: Phase = "starting"
    opened: str = ""
    waits_for: tuple[str, ...] = ("the first look at the cluster",)
    namespaces: int = 0
    policies: int = 0
    pods: int = 0
    local_pods: int = 0
    isolated: dict[str, int] = {}
    audited: int = 0
    kernel: dict[Family, FamilyCounts] = {}
    unattached: dict[str, str] = {}
    problems: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()
    defects: int = 0
    weaknesses: tuple[str, ...] = ()
    troubles: dict[str, str] = {}
    stale: float = 0.0
    repaired: int = 0
    last_repair: str = ""
    failed_writes: int = 0
    last_error: str = ""

    @property
    def ready(self) -> bool:
        return not self.waits_for


class Board:
    """Assignment is atomic, and nothing that is published changes any more."""

    def __init__(self, first: AgentStatus) -> None:
        self.status = first
