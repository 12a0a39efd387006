"""The smallest cluster that still shows it: parts of the objects are taken away for as long as `shows` holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from tests.oracle.fields import Object

Path = tuple[str | int, ...]
# What an object is, which, and where: without these it would be another, not a smaller one.
IDENTITY = ("apiVersion", "kind", "metadata", "name", "namespace", "nodeName")


def shrink(objects: list[Object], shows: Callable[[list[Object]], bool]) -> list[Object]:
    """`shows` may raise where a part that it needs is gone: then the part stays."""

    def holds(candidate: list[Object]) -> bool:
        try:
            return shows(candidate)
        except Exception:
            return False

    smaller = True
    while smaller:
        smaller = False
        for path in list(_paths(objects)):
            candidate = _without(objects, path)
            if candidate is not None and holds(candidate):
                objects, smaller = candidate, True
    return objects


def _paths(tree: Any, at: Path = ()) -> Iterator[Path]:
    """Every part of `tree`, whole before its own parts, the last entries of lists first so that paths stay true."""
    if isinstance(tree, dict):
        steps: list[str | int] = list(tree)
    else:
        steps = list(reversed(range(len(tree)))) if isinstance(tree, list) else []
    for step in steps:
        part = tree[step]
        if step == "status":  # addresses
            continue
        if step not in IDENTITY and not (isinstance(part, dict) and "nodeName" in part):
            yield (*at, step)
        yield from _paths(part, (*at, step))


def _without(objects: list[Object], path: Path) -> list[Object] | None:
    """None where the part is gone already."""
    copy = deepcopy(objects)
    holder: Any = copy
    try:
        for step in path[:-1]:
            holder = holder[step]
        del holder[path[-1]]
    except (KeyError, IndexError, TypeError):
        return None
    return copy
