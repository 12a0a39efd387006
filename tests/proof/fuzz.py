"""Random clusters until `--flows` flows have been asked of oracle, verdict and simulated rules.

    python -m tests.proof.fuzz --flows 1000000 [--seed 1] [--jobs 2]
    python -m tests.proof.fuzz --replay FILE

On a mismatch: the seed, the smallest cluster that shows it and the flow are printed and kept in `build/fuzz/`, and the
exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import yaml

from tests.oracle import End, Flow, Oracle
from tests.oracle.fields import Object, name_of, namespace
from tests.proof.compare import FLOWS_A_CLUSTER, Mismatch, case, mismatches
from tests.proof.shrink import shrink

SEEDS_A_BATCH = 40
REPROS = Path("build/fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.fuzz")
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="the first of consecutive seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="ask a kept repro again")
    options = parser.parse_args()
    if options.replay:
        return replay(options.replay)
    started = time.monotonic()
    asked, allowed, clusters = 0, 0, 0
    with ProcessPoolExecutor(options.jobs) as pool:
        for outcome in pool.map(run_seeds, batches(options.seed, options.flows)):
            if isinstance(outcome, int):
                pool.shutdown(cancel_futures=True)
                report(outcome)
                return 1
            asked, allowed, clusters = asked + outcome.total(), allowed + outcome[True], clusters + SEEDS_A_BATCH
            if clusters % 400 == 0:
                print(f"{asked:,} flows", file=sys.stderr, flush=True)
    print(f"seeds {options.seed} to {options.seed + clusters - 1}, {time.monotonic() - started:.0f} s")
    print(f"{asked:,} flows ({allowed:,} allowed), 0 mismatches")
    return 0


def batches(first_seed: int, flows: int) -> Iterator[range]:
    """Seeds for at least `flows` flows; the few clusters without a live pod, which ask nothing, are allowed for."""
    enough = flows + flows // 20
    for start in range(0, -(-enough // FLOWS_A_CLUSTER), SEEDS_A_BATCH):
        yield range(first_seed + start, first_seed + start + SEEDS_A_BATCH)


def run_seeds(seeds: range) -> Counter[bool] | int:
    """How many flows are allowed and denied, or the first seed with a mismatch."""
    counts: Counter[bool] = Counter()
    for seed in seeds:
        objects, flows, node_egress = case(seed)
        try:
            if any(True for _ in mismatches(objects, flows, node_egress)):
                return seed
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        oracle = Oracle(objects)
        counts.update(all(oracle.verdict(flow, node_egress)) for flow in flows)
    return counts


def report(seed: int) -> None:
    objects, flows, node_egress = case(seed)
    first = next(mismatches(objects, flows, node_egress))

    def shows(candidate: list[Object]) -> bool:
        there = {f"{namespace(each)}/{name_of(each)}" for each in candidate if each["kind"] == "Pod"}
        if not {first.flow.src.pod, first.flow.dst.pod} <= there | {""}:
            return False
        return any(each.answers == first.answers for each in mismatches(candidate, [first.flow], node_egress))

    small = shrink(objects, shows)
    _show(small, next(mismatches(small, [first.flow], node_egress)))
    REPROS.mkdir(parents=True, exist_ok=True)
    kept = REPROS / f"seed-{seed}.json"
    kept.write_text(json.dumps({"objects": small, "flow": asdict(first.flow), "node_egress": node_egress}, indent=1))
    print(f"seed {seed}; again: python -m tests.proof.fuzz --replay {kept}")


def replay(kept: Path) -> int:
    repro = json.loads(kept.read_text())
    asked = repro["flow"]
    flow = Flow(End(**asked["src"]), End(**asked["dst"]), asked["protocol"], asked["port"])
    for each in mismatches(repro["objects"], [flow], repro["node_egress"]):
        _show(repro["objects"], each)
        return 1
    print(f"{flow}: all three agree")
    return 0


def _show(objects: list[Object], mismatch: Mismatch) -> None:
    print(yaml.safe_dump_all(objects, sort_keys=False))
    print(mismatch)


if __name__ == "__main__":
    sys.exit(main())
