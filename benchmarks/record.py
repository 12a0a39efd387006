"""What a benchmark says: figures, each the median of samples, and where they were measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

import msgspec
from msgspec import Struct

from benchmarks.machine import Machine, describe

Size = Literal["quick", "full"]
Unit = Literal["ratio", "ns", "µs", "ms", "s", "MB", "count"]
Case = dict[str, str | int]
RESULTS = Path(__file__).parent / "results"


class Figure(Struct, frozen=True):
    """`what` was measured, in which `case`: the median of `samples` samples, and their quartiles. A ratio has its two
    sides measured in turns within one run. `target`: at most this much; None where the figure is only told."""

    what: str
    case: Case
    unit: Unit
    median: float
    low: float
    high: float
    samples: int
    target: float | None = None

    @property
    def met(self) -> bool:
        return self.target is None or self.median <= self.target


class Report(Struct, frozen=True):
    """All figures of one benchmark, from one run. `recorded` is in UTC; `load`: processes that wanted to run, on
    average over the minute before and the minute at the end."""

    name: str
    size: Size
    recorded: str
    seconds: float
    load: tuple[float, float]
    machine: Machine
    figures: tuple[Figure, ...]


def figure(what: str, samples: Sequence[float], unit: Unit, target: float | None = None, **case: str | int) -> Figure:
    """The figure of at least one sample."""
    low, _, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else (samples[0],) * 3
    return Figure(what, case, unit, rounded(median(samples)), rounded(low), rounded(high), len(samples), target)


def percentile(samples: Sequence[float], which: int) -> float:
    """Between the two samples nearest to it, by share; the one sample where there is but one."""
    return quantiles(samples, n=100, method="inclusive")[which - 1] if len(samples) > 1 else samples[0]


def rounded(value: float) -> float:
    """To four digits: more would be noise, in the page and in every diff of a recording."""
    return float(f"{value:.4g}")


def recorded(name: str, size: Size, measure: Callable[[], Iterable[Figure]]) -> Report:
    """What `measure` finds, with when, how long and beside what else it was."""
    began, load = time.monotonic(), os.getloadavg()[0]
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    figures = tuple(measure())
    seconds = round(time.monotonic() - began, 1)
    return Report(name, size, moment, seconds, (load, os.getloadavg()[0]), describe(), figures)


def write(report: Report, folder: Path = RESULTS) -> Path:
    path = folder / f"{report.name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return path


def read(folder: Path = RESULTS) -> dict[str, Report]:
    """The recorded reports by name."""
    decode = msgspec.json.Decoder(Report).decode
    return {path.stem: decode(path.read_bytes()) for path in sorted(folder.glob("*.json"))}
