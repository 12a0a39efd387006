"""One soak: begins, warms up, lets things happen and break, comes to rest, and says what it saw."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

from msgspec import Struct

from lab.topology import Attach
from tests.soak.churn import Churn
from tests.soak.cluster import MODES, SoakCluster, add_fixed_stations, soak_lab
from tests.soak.faults import SPARED, Faults
from tests.soak.flat import Taken, grown, taken
from tests.soak.probes import Probes

RATE = 800.0
FAULTS = 0.15  # of the turns
_SHOWN = 5
_AGAIN = 10.0  # seconds for what is left behind to be tidied up
Say = Callable[[str], None]


class Report(Struct):
    """What a soak saw. `wrong` are verdicts, `overdue` transitions, `grown` what is not flat; `failures` end a soak."""

    seed: int
    attach: str
    seconds: float
    counts: dict[str, int]
    changes: dict[str, int]
    faults: dict[str, int]
    widths: list[float]
    widths_beside_faults: list[float]
    repairs: list[float]
    before: dict[str, Taken]
    after: dict[str, Taken]
    wrong: list[str]
    overdue: list[str]
    grown: list[str]
    failures: list[str]
    gaps: list[float] = []  # seconds that an address which was handed over had no link, sorted
    lags: list[float] = []  # seconds after which a packet still passed in a flow of an address's former owner, sorted

    @property
    def good(self) -> bool:
        return not (self.wrong or self.overdue or self.grown or self.failures)


class Soak:
    def __init__(self, seed: int, attach: Attach, rate: float, folder: Path, stack: ExitStack, say: Say) -> None:
        self.seed, self.attach, self.say, self.folder = seed, attach, say, folder
        lab = stack.enter_context(soak_lab(f"soak-{os.getpid()}", attach))
        self.cluster = SoakCluster(lab, folder, stack)
        self.probes = Probes(self.cluster.judge, Random(seed + 1), rate)
        self.rng = Random(seed)
        self.churn = Churn(self.cluster, self.probes, self.rng)
        self.faults = Faults(self.cluster, self.churn, self.rng)
        self.failures: list[str] = []
        self._told = 0  # wrong verdicts
        os.environ["PODFENCE_DEBUG"] = "1"  # an agent that ends by itself shows where
        stack.callback(self._end_agents)

    def begin(self) -> None:
        """Agents enforce, and probes are on their way."""
        add_fixed_stations(self.cluster.lab, self.probes)
        self.churn.populate()
        for agent in self.cluster.agents.values():
            agent.start()
        with self.cluster.slower(30):
            self.cluster.settle()
        self.probes.start()

    def run(self, minutes: float) -> Report:
        began = time.monotonic()
        self.begin()
        before: dict[str, Taken] = {}
        after: dict[str, Taken] = {}
        total = minutes * 60
        try:
            # Counted in turns, so that what happens after it does not depend on how fast the machine is.
            self._happen(began + total, turns=int(min(60.0, total / 6)))
            before = self._at_rest()
            self._happen(began + total)
            after = self._at_rest()
        except Exception as error:  # whatever it is, what was seen by then is told
            self.failures.append(f"{type(error).__name__}: {error}")
            if not isinstance(error, RuntimeError):
                self.failures.append(traceback.format_exc())
        finally:
            self.probes.stop()
        return self._report(time.monotonic() - began, before, after)

    def _happen(self, until: float, turns: int | None = None) -> None:
        told, wrong = time.monotonic(), self.cluster.judge.wrong
        for turn in itertools.count():
            if turn == turns or time.monotonic() >= until or self.probes.failures:
                return
            (self.faults if self.rng.random() < FAULTS else self.churn).turn()
            time.sleep(self.rng.uniform(0, 0.2))
            if time.monotonic() - told > 30:
                told = time.monotonic()
                self.say(self._line())
            for each in wrong[self._told : _SHOWN]:  # at once: what else may be seen now is gone later
                self.say(f"wrong: {each}")
            self._told = len(wrong)
            if len(wrong) > 50:
                raise RuntimeError("too many wrong verdicts to go on")

    def _line(self) -> str:
        counts = self.cluster.judge.counts
        return (
            f"{counts['judged']:,} probes, {len(self.cluster.judge.wrong)} wrong; {sum(self.churn.counts.values())} "
            f"changes, {sum(self.faults.counts.values())} faults"
        )

    def _at_rest(self) -> dict[str, Taken]:
        """Once nothing is being tidied up any more."""
        self.churn.rest()
        found, deadline = {}, time.monotonic() + _AGAIN
        for agent in self.cluster.agents.values():
            now = taken(agent)
            while True:
                time.sleep(1)
                last, now = now, taken(agent)
                if (last.chains, last.sets, last.entries) == (now.chains, now.sets, now.entries) or (
                    time.monotonic() > deadline
                ):
                    break
            found[agent.node] = now
        return found

    def _report(self, seconds: float, before: dict[str, Taken], after: dict[str, Taken]) -> Report:
        timeline, judge = self.cluster.timeline, self.cluster.judge
        failures = [*self.failures, *self.probes.failures[:_SHOWN]]
        wrong = [str(each) for each in judge.wrong]
        if wrong or failures:
            failures += [f"log of {node}:\n{agent.tail(40)}" for node, agent in self.cluster.agents.items()]
        return Report(
            self.seed,
            self.attach,
            seconds,
            {**judge.counts, "sent": self.probes.sent},
            dict(self.churn.counts),
            dict(self.faults.counts) | {"agents started": sum(a.starts for a in self.cluster.agents.values())},
            *(
                sorted(round(seconds, 4) for seconds in found)
                for found in (timeline.widths, timeline.widths_beside_faults, [each for _, each in timeline.repairs])
            ),
            before,
            after,
            wrong,
            list(timeline.overdue),
            [
                f"{node}: {each}"
                for node in MODES
                if node in before and node in after
                for each in grown(before[node], after[node], node == SPARED)
            ],
            failures,
            *(sorted(round(seconds, 4) for seconds in found) for found in (self.churn.pods.gaps, judge.lags)),
        )

    def _end_agents(self) -> None:
        for agent in self.cluster.agents.values():
            if agent.process and agent.process.process.poll() is None:
                agent.process.kill()


def soak(minutes: float, seed: int, attach: Attach = "routed", rate: float = RATE, say: Say = print) -> Report:
    """Where something is wrong the folder with the agents' logs stays, and is named."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    with ExitStack() as stack:
        report = Soak(seed, attach, rate, folder, stack, say).run(minutes)
    if report.good:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs of the agents: {folder}", file=sys.stderr)
    return report
