"""A node whose clock is wrong and is set, by hours, forwards and back, while its agent runs: nothing waits for it.

Only the agent has such a clock: Python reads the `sitecustomize` below first, by which all that asks for the time of
day gets it shifted. What TLS makes of a wrong clock is in test_certificates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from lab.probe import Outcome, Probe
from tests.agent.node import AgentProcess, until
from tests.enforcer.test_kernel import BACKENDS, OPEN, REJECTED, world
from tests.hostile.test_certificates import Place, place

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
__all__ = ["place", "world"]
ROOT = Path(__file__).parents[2]
WEB_TO_API = Probe("shop/web", "shop/api", "TCP", 80)
OTHER_TO_API = Probe("shop/other", "shop/api", "TCP", 80)
HOUR = 3600.0

SHIFTED = """
import datetime, pathlib, time

offset = pathlib.Path(__file__).with_name("offset")
real = time.time

def shifted():
    return real() + float(offset.read_text())

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(shifted(), tz)

time.time = shifted
time.time_ns = lambda: int(shifted() * 1e9)
datetime.datetime = Shifted
"""


class Clock:
    """The agent's time of day, `hours` off."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        (folder / "sitecustomize.py").write_text(SHIFTED)
        self.set(0)

    @property
    def environment(self) -> str:
        return f"PYTHONPATH={self._folder}:{ROOT}"

    def set(self, hours: float) -> None:
        new = self._folder / "new"
        new.write_text(str(hours * HOUR))
        new.rename(self._folder / "offset")
        self.hours = hours

    def is_that_of(self, moment: str) -> bool:
        """Of a log line's time."""
        off = datetime.fromisoformat(moment).timestamp() - time.time()
        return abs(off - self.hours * HOUR) < 60


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def agent(place: Place, clock: Clock) -> Iterator[AgentProcess]:
    with place.agent(clock.environment) as agent:
        yield agent


def outcomes(place: Place) -> list[Outcome]:
    return place.cluster.world.outcomes(WEB_TO_API, OTHER_TO_API)


def changes_are_followed(place: Place) -> None:
    place.cluster.relabel("web", app="nobody")
    until(lambda: outcomes(place) == [REJECTED, REJECTED], "a label")
    place.cluster.relabel("web", app="web")
    until(lambda: outcomes(place) == [OPEN, REJECTED], "and back")


def damage_is_repaired(place: Place, agent: AgentProcess) -> None:
    before = agent.metric("podfence_drift_repaired_total")
    assert place.cluster.world.lab.run("n1", ["iptables-nft", "-F", "PODFENCE-FORWARD"]).returncode == 0
    until(lambda: agent.metric("podfence_drift_repaired_total") > before, "repaired", 3)
    assert outcomes(place) == [OPEN, REJECTED]


def denials_are_told(place: Place, agent: AgentProcess, clock: Clock) -> None:
    """Those that are new, and what goes on, at the time that the clock says."""
    told = len(agent.said())

    def lines() -> list[dict[str, object]]:
        return [line for line in agent.said()[told:] if line["message"] == "denied"]

    def counted() -> bool:
        outcomes(place)
        return any(line.get("count") for line in lines())

    until(counted, lambda: f"counts of what goes on: {agent.said()[told:]}", 12)
    assert all(clock.is_that_of(str(line["time"])) for line in lines())


def the_api_server_is_found_again(place: Place, agent: AgentProcess, token: str) -> None:
    """After it was away for a moment, and wants another token."""
    server = place.cluster.server
    server.token = token
    server.cut_all()
    until(lambda: agent.metric("podfence_watch_troubled") > 0, "trouble")
    place.account.replace({"token": token, "ca.crt": place.authority.pem})
    until(lambda: agent.metric("podfence_watch_troubled") == 0, "no trouble is left", 60)


@pytest.mark.parametrize("backend", BACKENDS[1:], ids=["nft"])
@pytest.mark.parametrize("hours", [(9,), (-9,), (9, -9)], ids=["forwards", "back", "forwards and back"])
def test_a_clock_that_is_set_stops_nothing(
    place: Place, agent: AgentProcess, clock: Clock, hours: tuple[float, ...]
) -> None:
    denials_are_told(place, agent, clock)
    for number, each in enumerate(hours):
        clock.set(each)
        assert outcomes(place) == [OPEN, REJECTED]
        changes_are_followed(place)
        damage_is_repaired(place, agent)
        denials_are_told(place, agent, clock)
        the_api_server_is_found_again(place, agent, f"token-{number}")
        changes_are_followed(place)
    assert agent.get("/readyz")[0] == 200 and agent.get("/healthz")[0] == 200
    assert agent.metric("podfence_stale_seconds") == 0
    assert not any("Traceback" in str(line) for line in agent.said())


@pytest.mark.parametrize("backend", BACKENDS[1:], ids=["nft"])
@pytest.mark.parametrize("hours", [200_000, -200_000])
def test_an_agent_begins_under_a_clock_that_is_years_off(place: Place, clock: Clock, hours: float) -> None:
    clock.set(hours)
    with place.agent(clock.environment) as agent:
        assert outcomes(place) == [OPEN, REJECTED]
        clock.set(0)
        changes_are_followed(place)
        damage_is_repaired(place, agent)
        assert agent.get("/readyz")[0] == 200
