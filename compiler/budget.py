"""What the rules of one allow-set may cost, so that nobody's policies keep a node from the work for everybody else.

Rules with blocks, exceptions and ports of their own multiply: a thousand of them, which are 100 KB of YAML, can ask for
a million permissions that all differ. The work is counted as it is done, in parts of what comes out, so the count is
the same on every machine and in whatever order rules come. What is beyond the budget grants nothing, and isolates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

# About half a second of one core, rules in the kernel included. No rule by itself comes near: 16,000 blocks count
# 16,000, and as many rules with a peer and a port each no more than 64,000.
BUDGET = 200_000
_Found = TypeVar("_Found")
_Item = TypeVar("_Item")


class BeyondBudget(Exception):
    """The work is more than it may be."""


class Meter:
    """Spends a budget; without one it only counts."""

    def __init__(self, budget: int | None = None) -> None:
        self._budget = budget
        self.spent = 0

    def spend(self, parts: int) -> None:
        self.spent += parts
        if self._budget is not None and self.spent > self._budget:
            raise BeyondBudget


def most_within(items: Sequence[_Item], work: Callable[[Sequence[_Item], Meter], _Found]) -> tuple[int, _Found]:
    """Of `items`, which are too many: how many from the first on `work` can bear, and what it finds for these. None at
    all it always can."""
    least, most = 0, len(items) - 1
    found = work((), Meter())
    while least < most:
        count = (least + most + 1) // 2
        try:
            found = work(items[:count], Meter(BUDGET))
            least = count
        except BeyondBudget:
            most = count - 1
    return least, found
