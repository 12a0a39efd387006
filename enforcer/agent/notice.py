"""What an operator should read in the log of two pictures of the agent, one after the other. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from enforcer.agent.board import AgentStatus


class Notice(Struct, frozen=True):
    """One log line."""

    level: Literal["info", "warning"]
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
    for weakness in _new(before.weaknesses, now.weaknesses):
        yield Notice("warning", "a way around enforcement", {"what": weakness})


def _new(before: tuple[str, ...], now: tuple[str, ...]) -> Iterator[str]:
    known = set(before)
    yield from (each for each in now if each not in known)
