"""What breaks: agents, the API server, and what others do to a node. Each is made good when its function returns."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from tests.api.server import Server, Talk
from tests.soak.churn import Churn
from tests.soak.cluster import MODES, Agents, SoakCluster
from tests.soak.timeline import Damage

SPARED = "n3"  # its agent lives as long as the run, so that what it takes can be compared
REPAIRED_WITHIN = 3.0
_AGENT_AWAY, _API_AWAY = 20.0, 25.0  # what these add to the bound of a transition
_QUIET = 1.5
_KINDS = ("pods", "namespaces", "networkpolicies", "nodes")
_REPAIRED = b"they are repaired"


class Faults:
    """`turn` lets one thing break, with changes meanwhile."""

    def __init__(self, cluster: SoakCluster, churn: Churn, rng: Random) -> None:
        self.cluster = cluster
        self.churn = churn
        self.rng = rng
        self.counts: Counter[str] = Counter()

    def turn(self) -> None:
        kinds: dict[Callable[[], str], float] = {
            self._agent_killed: 4,
            self._agent_ended: 2,
            self._api_away: 2,
            self._api_slow: 2,
            self._api_refuses: 1,
            self._watches_expired: 2,
            self._garbage: 1,
            self._restored: 1,
            self._rules_flushed: 4,
            self._sets_spoiled: 2,
            self._all_destroyed: 1,
            self._lock_held: 2,
            self._programs_killed: 2,
        }
        fault = self.rng.choices([*kinds], [*kinds.values()])[0]
        self.counts[fault()] += 1

    def _some_changes(self, most: int = 2) -> None:
        """Nobody waits for them: they are in transition until the fault is over."""
        self.churn.wait = False
        try:
            for _ in range(self.rng.randint(1, most)):
                self.churn.turn()
        finally:
            self.churn.wait = True

    def _agent(self, spared: bool = False) -> Agents:
        return self.cluster.agents[self.rng.choice([node for node in MODES if spared or node != SPARED])]

    def _agent_killed(self) -> str:
        agent = self._agent()
        with self.cluster.slower(_AGENT_AWAY):
            self._some_changes(1)
            time.sleep(self.rng.uniform(0, 0.03))  # in the middle of it, with luck
            assert agent.process
            absence = self.cluster.timeline.leaves(agent.node, time.monotonic())
            agent.process.kill()
            self._start_again(agent, absence)
        return "agents killed"

    def _agent_ended(self) -> str:
        agent = self._agent()
        with self.cluster.slower(_AGENT_AWAY):
            assert agent.process
            absence = self.cluster.timeline.leaves(agent.node, time.monotonic())
            agent.process.stop()
            self._start_again(agent, absence)
        return "agents ended"

    def _start_again(self, agent: Agents, absence: Damage) -> None:
        if self.rng.random() < 0.5:
            time.sleep(self.rng.uniform(0, 2))
            self._some_changes(1)
        agent.start()
        if self.rng.random() < 0.2:  # killed while it begins
            time.sleep(self.rng.uniform(0.2, 2))
            agent.process.kill()  # type: ignore[union-attr]
            agent.start()
        self.cluster.settle_all("an agent is back")
        self.cluster.timeline.returned(absence, time.monotonic())

    @contextmanager
    def _answering(self, fault: Callable[[Talk], None], nodes: list[str]) -> Iterator[None]:
        servers = [self.cluster.servers[node] for node in nodes]
        for server in servers:
            server.always = {f"{verb} {kind}": fault for verb in ("list", "watch") for kind in _KINDS}
            server.cut_all()
        try:
            yield
        finally:
            for server in servers:
                server.always = {}

    def _some_nodes(self) -> list[str]:
        return self.rng.choice([[*MODES], [*MODES], [self.rng.choice([*MODES])]])

    def _broken(self, fault: Callable[[Talk], None], most: float) -> None:
        with self.cluster.slower(_API_AWAY):
            with self._answering(fault, self._some_nodes()):
                self._some_changes()
                time.sleep(self.rng.uniform(0.2, most))
            self.cluster.settle_all("the API server is well again")

    def _api_away(self) -> str:
        self._broken(Talk.reset, 4)
        return "API server away"

    def _api_slow(self) -> str:
        delay = self.rng.uniform(0.1, 1)

        def slow(talk: Talk) -> None:
            time.sleep(delay)
            talk.cuts = talk.server.cuts  # what was cut meanwhile was another connection
            talk.answer()

        self._broken(slow, 3)
        return "API server slow"

    def _api_refuses(self) -> str:
        status = self.rng.choice([403, 429, 500, 503])
        self._broken(lambda talk: talk.refuse(status, "Oops", "not now"), 2)
        return "API server refuses"

    def _watches_expired(self) -> str:
        with self.cluster.slower(_API_AWAY):
            self._some_changes(1)
            self.cluster.history.compact()
            self._cut()
            self._some_changes(1)
            self.cluster.settle_all("watches go on")
        return "watches expired (410)"

    def _garbage(self) -> str:
        def garbage(talk: Talk) -> None:
            talk.start_watch()
            talk.chunk(b'{"type":"MODIFIED","object":{"kind":"Pod"\n')
            talk.chunk(b"<html>\n")
            talk.reset()

        with self.cluster.slower(_API_AWAY):
            for server in self.cluster.servers.values():
                for kind in _KINDS:
                    server.faults[f"watch {kind}"].append(garbage)
            self._cut()
            self._some_changes()
            self.cluster.settle_all("watches go on")
        for server in self.cluster.servers.values():
            server.faults.clear()
        return "garbage in a watch"

    def _restored(self) -> str:
        """A backup is read in: what agents know is newer than what the API server says."""
        saved = self.cluster.saved()
        for _ in range(self.rng.randint(1, 2)):
            self.churn.harmless()
        with self.cluster.slower(_API_AWAY):
            with self._answering(Talk.reset, [*MODES]):
                self.cluster.restore("an older backup is read in", saved)
                newest, follows = self.cluster.history.number, set[tuple[Server, str]]()

                def too_large(talk: Talk) -> None:
                    number = self.cluster.history.number_of(talk.query.get("resourceVersion", ""))
                    if number is not None and number > newest:
                        talk.refuse(504, "Timeout", "Too large resource version", "ResourceVersionTooLarge")
                        return
                    if talk.watching and number == newest:
                        follows.add((talk.server, talk.title))
                    talk.answer()

                time.sleep(0.3)
            # Barriers are not as they were either: nothing is sent before every agent has listed anew.
            with self._answering(too_large, [*MODES]):
                deadline = time.monotonic() + _API_AWAY
                while len(follows) < len(MODES) * len(_KINDS):
                    if time.monotonic() > deadline:
                        raise RuntimeError("an agent goes on watching an API server that was restored")
                    time.sleep(0.01)
            self.cluster.settle_all("the API server is well again")
        return "API server restored from a backup"

    def _cut(self) -> None:
        for server in self.cluster.servers.values():
            server.cut_all()

    def _rules_flushed(self) -> str:
        agent = self._agent(spared=True)
        program = self.rng.choice(["iptables", "ip6tables"])
        chain = self.rng.choice([["PODFENCE-FORWARD"], ["PODFENCE-INGRESS"], ["FORWARD"], []])
        self._damaged(agent, f"{program} -F {' '.join(chain)}", lambda: agent.run(program, "-F", *chain))
        return "chains flushed"

    def _sets_spoiled(self) -> str:
        agent = self._agent(spared=True)
        # What is done to sets while podfence writes is noticed when everything is read back, once a minute.
        time.sleep(_QUIET)
        entries = [line.split()[1:3] for line in agent.run("ipset", "save").splitlines() if line.startswith("add pf-")]
        known = [each for each in entries if each[0].endswith("-known")]
        if not entries:
            return "sets left alone"
        name, member = self.rng.choice(known if known and self.rng.random() < 0.5 else entries)
        argv = ("flush", name) if self.rng.random() < 0.5 else ("del", name, member)
        self._damaged(agent, f"ipset {' '.join(argv)}", lambda: agent.run("ipset", *argv), met=name.endswith("-known"))
        return "sets flushed"

    def _all_destroyed(self) -> str:
        agent = self._agent(spared=True)

        def destroy() -> None:
            for program in ("iptables", "ip6tables"):
                agent.run(program, "-F")
                agent.run(program, "-X")
            for name in agent.run("ipset", "list", "-n").split():
                agent.run("ipset", "destroy", name)

        self._damaged(agent, "everything flushed, sets destroyed", destroy)
        return "sets destroyed"

    def _damaged(self, agent: Agents, what: str, spoil: Callable[[], object], met: bool = True) -> None:
        """Until the agent says that it is repaired. Where it is not sure that a packet could have `met` it (a set that
        rules no longer look in), and nobody repairs it, it was no damage from then on."""
        before = agent.told
        damage = self.cluster.timeline.damage(agent.node, what, time.monotonic(), REPAIRED_WITHIN)
        spoil()
        spoilt = time.monotonic()
        while not agent.count(_REPAIRED, before):
            agent.check()
            if not met and time.monotonic() - spoilt > REPAIRED_WITHIN - 1:
                self.cluster.timeline.unmet(damage, time.monotonic())
                return
            if time.monotonic() - spoilt > 20:
                raise RuntimeError(f"{what} on {agent.node} was not repaired: {agent.tail()}")
            time.sleep(0.01)
        # More than one repair, where it was noticed before all of it was done.
        seen, quiet = agent.count(_REPAIRED, before), time.monotonic()
        end = quiet
        while time.monotonic() - quiet < 0.4:
            time.sleep(0.02)
            if (now := agent.count(_REPAIRED, before)) != seen:
                seen, quiet = now, time.monotonic()
                end = quiet
        self.cluster.timeline.repaired(damage, end)

    def _lock_held(self) -> str:
        agent = self._agent(spared=True)
        seconds = self.rng.uniform(0.5, 3)
        with self.cluster.slower(seconds + 2), _held(agent.lock):
            self._some_changes()
            time.sleep(seconds)
        self.cluster.settle()
        return "xtables lock held"

    def _programs_killed(self) -> str:
        """The programs by which an agent writes, again and again while things change."""
        agent, stop = self._agent(spared=True), threading.Event()
        rng = Random(self.rng.random())
        killer = threading.Thread(target=_kill_programs, args=[agent, stop, rng])
        with self.cluster.slower(15):
            killer.start()
            try:
                for _ in range(3):
                    self._some_changes(1)
                    time.sleep(0.1)
            finally:
                stop.set()
                killer.join()
            self.cluster.settle()
        return "restore programs killed"


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _kill_programs(agent: Agents, stop: threading.Event, rng: Random) -> None:
    """Children of that agent, and of nobody else; each by its own id."""
    while not stop.wait(rng.uniform(0.005, 0.05)):
        with suppress(OSError):
            for task in Path(f"/proc/{agent.pid}/task").iterdir():
                for child in (task / "children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
