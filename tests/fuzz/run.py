"""Spoiled bytes for one decoder until its time is over, or something is found."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import NamedTuple

from tests.fuzz.targets import TARGETS, Target, inputs

TOO_LONG = 5.0  # seconds of CPU for one input; the longest take some milliseconds


class Found(NamedTuple):
    number: int
    data: bytes
    what: str


class Result(NamedTuple):
    name: str
    inputs: int
    seconds: float
    slowest: float
    found: Found | None


class Hangs(AssertionError):
    """One input took longer than any may."""


def attempt(target: Target, data: bytes) -> None:
    with _bounded():
        target.check(data)


def run(name: str, seconds: float, seed: int) -> Result:
    target = next(each for each in TARGETS if each.name == name)
    began, slowest, count = time.process_time(), 0.0, 0
    for count, data in enumerate(inputs(target, Random(f"{name} {seed}")), 1):
        before = time.process_time()
        if before - began >= seconds:
            break
        try:
            attempt(target, data)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
            return Result(name, count, time.process_time() - began, slowest, Found(count, data, what))
        slowest = max(slowest, time.process_time() - before)
    return Result(name, count, time.process_time() - began, slowest, None)


@contextmanager
def _bounded() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hangs(f"more than {TOO_LONG:g} s of CPU")

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, TOO_LONG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
