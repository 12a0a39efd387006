"""Whom the loop tells, as it knows them: what ends connections, and what tells people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from enforcer.connections.concern import Concern, Owners
from enforcer.connections.ender import Moment
from enforcer.keeping.repair import Repair
from enforcer.rules.steps import Plan
from policy.cidr import Address
from policy.errors import HostRefused

if TYPE_CHECKING:
    from enforcer.agent.loop import Loop


class Flows(Protocol):
    """What ends open connections (see `Ender`)."""

    def hand_over(self, owners: Owners) -> frozenset[Address]: ...

    def begin(self, moment: Moment, old_marks: Iterable[int]) -> None: ...

    def tell(self, change: Concern, moment: Moment) -> None: ...


class Observer(Protocol):
    """Who is told how things went, for log, metrics, board and API server."""

    def applied(self, plans: tuple[Plan, ...], why: str, heard: float, began: float, ended: float) -> None: ...

    def repaired(self, repairs: tuple[Repair, ...]) -> None: ...

    def failed(self, error: HostRefused) -> None: ...

    def stumbled(self, error: Exception) -> None: ...

    def turned(self, loop: Loop) -> None: ...
