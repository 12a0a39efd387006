"""What a flood of denied packets takes from others, beside the same frames where podfence allows them, and where there
is no podfence: `python -m tests.hostile.floods`, as root, on two cores at least.

Flood and stream go before all else that wants their cores (SCHED_FIFO), for less than half a second at a time, so that
other work on the machine does not count. A frame's whole way over veths is walked on its sender's core: what a stream
on another core loses is not the sender's time, and what one on the same core loses is. There the two share it as any
two programs do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from msgspec import Struct

from enforcer.kernel.backend import Backend, Mode
from tests.enforcer.bridged import FAMILIES
from tests.hostile.attack import POLICIES, Attacked, attacked
from tests.hostile.flood import FLOODS, STREAMS, Stream, flood
from tests.hostile.test_flood import denied

TURNS, SECONDS, PAUSE = 9, 0.3, 0.5
RATE = 130_000  # more than 100,000 are to be reached where a core can
CASES = ("denied", "allowed", "no podfence")


class Flooded(Struct, frozen=True):
    """Medians of all turns. `rate` packets a second were sent, `denied` of them counted by rules; each cost
    `nanoseconds` of its sender's core. `kept` is the share of its bytes a second that the stream kept, `least` that of
    the worst turn, `per_core` the share of its bytes for a second that it had its core."""

    backend: str
    case: str
    apart: bool
    rate: float
    denied: float
    nanoseconds: float
    kept: float
    least: float
    per_core: float

    def __str__(self) -> str:
        cores = "a core of its own" if self.apart else "the stream's core"
        return (
            f"| {self.backend} | {self.case} | {cores} | {self.rate:,.0f} | {self.denied:,.0f} | "
            f"{self.nanoseconds / 1000:.1f} µs | {self.kept:.3f} | {self.least:.3f} | {self.per_core:.3f} |"
        )


@contextmanager
def world_of(mode: Mode, case: str) -> Iterator[Attacked]:
    with attacked(Backend(mode, FAMILIES), "routed") as world:
        if case != "no podfence":
            world.enforce(POLICIES if case == "denied" else "")
        yield world


def flooded(mode: Mode, case: str, rate: int, apart: bool = True) -> Flooded:
    rates, counts, costs, kept, per_core = [], [], [], [], []
    with world_of(mode, case) as world:
        stream = Stream(world)
        for _ in range(TURNS):
            quiet = stream.carried(SECONDS, first=apart)
            before = packets_denied(world)
            with flood(world, denied(world), rate, core=FLOODS if apart else STREAMS, first=apart) as flooding:
                time.sleep(0.05)
                sent, began = flooding.sent, time.monotonic()
                meanwhile = stream.carried(SECONDS, first=apart)
                rates.append((flooding.sent - sent) / (time.monotonic() - began))
            counts.append((packets_denied(world) - before) / max(1, flooding.sent) * rates[-1])
            costs.append(flooding.cost)
            kept.append(meanwhile[0] / quiet[0])
            per_core.append(meanwhile[1] / quiet[1])
            time.sleep(PAUSE)
        stream.close()
    return Flooded(
        mode, case, apart, median(rates), median(counts), median(costs), median(kept), min(kept), median(per_core)
    )


def packets_denied(world: Attacked) -> int:
    return sum(each.packets for each in world.status("n1").denied)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.floods", description=__doc__)
    parser.add_argument("--rate", type=int, default=RATE, help="packets a second that are wanted")
    asked = parser.parse_args()
    for mode in ("legacy", "nft"):
        for case in CASES:
            print(flooded(mode, case, asked.rate), flush=True)
        print(flooded(mode, "denied", asked.rate, apart=False), flush=True)


if __name__ == "__main__":
    main()
