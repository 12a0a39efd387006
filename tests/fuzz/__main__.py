"""Every decoder, for some seconds of CPU each:

    python -m tests.fuzz [--seconds 60] [--seed 1] [--jobs 2] [--only WORD]
    python -m tests.fuzz --replay FILE

What is found is kept in `build/fuzz/`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tests.fuzz.run import Found, Result, attempt, run
from tests.fuzz.targets import TARGETS

FINDS = Path("build/fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60, help="of CPU, for each decoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="decoders whose name holds this")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="give a kept find to its decoder again")
    options = parser.parse_args()
    if options.replay:
        return replay(options.replay)
    names = [target.name for target in TARGETS if options.only in target.name]
    with ProcessPoolExecutor(options.jobs) as pool:
        results = [*pool.map(partial(run, seconds=options.seconds, seed=options.seed), names)]
    for each in results:
        slowest = f"slowest {each.slowest * 1000:.0f} ms"
        print(f"{each.name:26} {each.inputs:9,} inputs {each.seconds:6.1f} s   {slowest}")
    for result in results:
        if result.found:
            keep(result, result.found)
    print(f"{sum(each.inputs for each in results):,} inputs, {sum(each.seconds for each in results):.0f} s of CPU")
    return int(any(result.found for result in results))


def keep(result: Result, found: Found) -> None:
    FINDS.mkdir(parents=True, exist_ok=True)
    file = FINDS / f"{result.name.split()[0].strip(':')}-{found.number}.bin"
    file.write_bytes(found.data)
    print(f"{result.name}: {found.what}\n  python -m tests.fuzz --replay {file}", file=sys.stderr)


def replay(file: Path) -> int:
    (target,) = (each for each in TARGETS if file.name.startswith(each.name.split()[0].strip(":") + "-"))
    attempt(target, file.read_bytes())
    print("nothing is wrong any more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
