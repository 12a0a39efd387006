"""The matrix of all workloads, the whole process, from a dump as kubectl writes it; a bare start of Python and a bare
parse of the same bytes beside it. Memory is the most that the process held, interpreter and input included. (Linux
counts what this one held when it made the other, so it must hold less.)"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import api_objects
from benchmarks.api_objects import World
from benchmarks.record import Figure, Size, figure

_PARSE = "import msgspec, sys; msgspec.json.decode(open(sys.argv[1], 'rb').read())"


def measure(size: Size) -> Iterator[Figure]:
    runs = 5 if size == "full" else 2
    yield from _measure(World(10_000, 1_000, 500) if size == "full" else World(200, 20, 10), runs)
    # As many applications as in the dump that `explain_bench` asks: sixteen times the pairs.
    yield from _measure(World(10_000, 1_000, 2_000) if size == "full" else World(200, 20, 40), (runs + 1) // 2)


def _measure(world: World, runs: int) -> Iterator[Figure]:
    case: dict[str, str | int] = {"pods": world.pods, "policies": world.policies, "workloads": world.apps}
    with TemporaryDirectory() as folder:
        file = Path(folder, "cluster.json")
        write_dump(world, file)
        podfence = [sys.executable, "-m", "podfence"]
        commands: dict[str, list[str]] = {
            "bare Python": [sys.executable, "-c", ""],
            "bare parse of the dump": [sys.executable, "-c", _PARSE, str(file)],
            "matrix": [*podfence, "matrix", "-f", str(file), "-o", "csv"],
            "matrix by namespace": [*podfence, "matrix", "-f", str(file), "-o", "csv", "--by", "namespace"],
            "reach": [*podfence, "reach", "--from", first_pod(world), "-f", str(file), "-o", "csv"],
        }
        found: dict[str, list[tuple[float, float, float]]] = {what: [] for what in commands}
        for _ in range(runs):
            for what, command in commands.items():
                found[what].append(timed(command))
    for what, samples in found.items():
        seconds, busy, megabytes = zip(*samples, strict=True)
        whole = what == "matrix"
        yield figure(what, seconds, "s", 5 if whole else None, **case)
        yield figure(f"{what}, processor time", busy, "s", None, **case)
        yield figure(f"{what}, memory", megabytes, "MB", 300 if whole else None, **case)


def timed(command: Sequence[str]) -> tuple[float, float, float]:
    """Seconds from start to end, of the processor's time, and the most megabytes that it held."""
    began = time.monotonic()
    nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawn(command[0], list(command), os.environ, file_actions=nowhere)
    _process, status, used = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def write_dump(world: World, file: Path) -> None:
    """Piece by piece: what this process holds would count as its children's, until they are somebody else."""
    with file.open("wb") as out:
        out.write(b'{"apiVersion":"v1","kind":"List","items":[')
        out.writelines(api_objects.namespace(world, number) + b",\n" for number in range(world.spaces))
        out.writelines(api_objects.policy(world, number) + b",\n" for number in range(world.policies))
        out.writelines(api_objects.pod(world, number) + b",\n" for number in range(1, world.pods))
        out.write(api_objects.pod(world, 0) + b"]}")


def first_pod(world: World) -> str:
    meta = json.loads(api_objects.pod(world, 0))["metadata"]
    return f"{meta['namespace']}/{meta['name']}"
