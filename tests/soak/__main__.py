"""`python -m tests.soak --minutes 30 --seed 1`: a soak, and what it saw. Ends with 1 where anything was wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import SystemRandom

import msgspec

from tests.soak.run import RATE, soak
from tests.soak.tell import lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=None, help="names the run; printed where it is not given")
    parser.add_argument(
        "--attach", choices=["routed", "bridge", "mixed"], default="mixed", help="how pods hang on their nodes"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="probes a second")
    parser.add_argument("--record", type=Path, help="a JSON file for the report")
    asked = parser.parse_args()
    seed = SystemRandom().randrange(10_000) if asked.seed is None else asked.seed
    print(f"seed {seed}, {asked.attach}, {asked.minutes:g} min", flush=True)
    report = soak(asked.minutes, seed, asked.attach, asked.rate, lambda line: print(line, flush=True))
    print("\n".join(lines(report)))
    if asked.record:
        asked.record.write_bytes(msgspec.json.encode(report) + b"\n")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
