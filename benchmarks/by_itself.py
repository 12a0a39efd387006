"""What a benchmark does with its figures that `make bench` does not run, since it makes a cluster of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import page
from benchmarks.record import RESULTS, Figure, Size, read, recorded, write


def keep(name: str, size: Size, into: Path, measure: Callable[[], Iterable[Figure]]) -> int:
    """Writes and prints them; docs/performance.md follows where they go to the recorded ones. 1 where one is missed."""
    report = recorded(name, size, measure)
    write(report, into)
    for each in report.figures:
        print(("" if each.met else "missed: ") + page.sentence(each))
    if into == RESULTS:
        page.update(read(RESULTS))
    return 0 if all(each.met for each in report.figures) else 1
