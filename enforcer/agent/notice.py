"""What an operator should read in the log of two pictures of the agent, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from enforcer.agent.board import AgentStatus

TOO_LARGE = (
    "its rules are too many that multiply (blocks, exceptions and ports of their own): it isolates and grants nothing"
)


class Notice(Struct, frozen=True):
    """One log line."""

    level: Literal["info", "warning", "error"]
    message: str
    fields: dict[str, str]


def notices(before: AgentStatus, now: AgentStatus) -> Iterator[Notice]:
    """What went wrong in between, and what is well again; nothing of what stayed as it was."""
    for kind, why in now.troubles.items():
        if before.troubles.get(kind) != why:
            yield Notice("warning", "not followed for the moment; what is known stays", {"kind": kind, "why": why})
    for kind in before.troubles.keys() - now.troubles.keys():
        yield Notice("info", "followed again", {"kind": kind})
    for problem in _new(before.problems, now.problems):
        yield Notice("warning", "not understood; it widens nothing", {"what": problem})
    for quarantined in _new(before.quarantined, now.quarantined):
        yield Notice("error", "podfence can't handle it; it is closed, and all else goes on", {"what": quarantined})
    for policy in _new(before.too_large, now.too_large):
        yield Notice("warning", TOO_LARGE, {"policy": policy})
    for weakness in _new(before.weaknesses, now.weaknesses):
        yield Notice("warning", "a way around enforcement", {"what": weakness})


def _new(before: tuple[str, ...], now: tuple[str, ...]) -> Iterator[str]:
    known = set(before)
    yield from (each for each in now if each not in known)
