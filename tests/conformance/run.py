"""Any file of truth tables through the evaluator and the simulated rules, and on demand through real packets.

    python -m tests.conformance.run --tables FILE [--kernel] [--limit N] [--families 4,6]

The last line is `N verdicts, M mismatches`: a verdict counts once, and is a mismatch if any of evaluator, rules and
packets misses it, in any family or backend. The exit code is 1 if there are any, and 2 where the file can't be read.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.conformance import judge
from tests.conformance.tables import Case, Expected, Family, read, spread

SHOWN = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run")
    parser.add_argument("--tables", type=Path, required=True, metavar="FILE")
    parser.add_argument("--kernel", action="store_true", help="real packets as well, on both iptables backends")
    parser.add_argument("--limit", type=int, metavar="N", help="only N cases, chosen so that all tags occur")
    parser.add_argument("--families", type=families, default=(4, 6), metavar="4,6")
    options = parser.parse_args()
    try:
        cases = list(read(options.tables))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{options.tables}: not a file of truth tables: {error}", file=sys.stderr)
        return 2
    chosen = spread(cases, options.limit) if options.limit else cases
    verdicts = mismatches = 0
    started = time.monotonic()
    for number, (case, missed) in enumerate(run(chosen, options.families, options.kernel), 1):
        verdicts += len(case.expected)
        for expected, said in missed.items():
            mismatches += 1
            if mismatches <= SHOWN:
                print(f"{case.name}: {expected}: expected {halves(expected)}; {said}")
        if options.kernel or number % 50 == 0:
            print(f"{number}/{len(chosen)} clusters, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"{verdicts} verdicts, {mismatches} mismatches")
    return 1 if mismatches else 0


def families(text: str) -> tuple[Family, ...]:
    known: dict[str, Family] = {"4": 4, "6": 6}
    try:
        return tuple(known[each.strip()] for each in text.split(","))
    except KeyError:
        raise argparse.ArgumentTypeError("4, 6 or 4,6") from None


def run(
    cases: Sequence[Case], chosen: Sequence[Family], with_packets: bool
) -> Iterator[tuple[Case, dict[Expected, str]]]:
    """Each case with the verdicts that were missed, and how."""
    with ExitStack() as exits:
        packets = None
        if with_packets:
            # Only packets need the lab.
            from tests.conformance.kernel import Packets

            packets = exits.enter_context(Packets())
        for case in cases:
            missed = dict(judge.wrong(case, chosen))
            if packets:
                missed = dict(packets.wrong(case, families=chosen)) | missed
            yield case, missed


def halves(expected: Expected) -> str:
    return f"ingress {expected.ingress}, egress {expected.egress}"


if __name__ == "__main__":
    sys.exit(main())
