"""One agent from its settings: which parts there are, in which order they begin and end, and who tells whom."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from enforcer.agent import log
from enforcer.agent.backoff import Backoff
from enforcer.agent.board import AgentStatus, Board
from enforcer.agent.denied import denied_packets
from enforcer.agent.inbox import Inbox
from enforcer.agent.knowledge import Again, Knowledge, Message
from enforcer.agent.loop import Loop
from enforcer.agent.metrics import Metrics
from enforcer.agent.nudge import Nudges
from enforcer.agent.programmed import Programmed
from enforcer.agent.publish import Publisher
from enforcer.agent.report import Reporter
from enforcer.agent.serve_http import HttpServer, Sources
from enforcer.agent.serve_local import LocalServer
from enforcer.agent.settings import Settings
from enforcer.agent.single import SingleAgent
from enforcer.agent.tales import Tales
from enforcer.attachment import links
from enforcer.attachment.cni_follow import CniResults
from enforcer.attachment.leaving import Leaving
from enforcer.cluster.api import Api
from enforcer.cluster.api_config import connect
from enforcer.cluster.heard import KINDS, Heard
from enforcer.cluster.resources import resources
from enforcer.cluster.watch_files import FileWatcher
from enforcer.cluster.watchers import Watchers
from enforcer.connections.ender import Ender
from enforcer.connections.flows import installed_marks
from enforcer.connections.gate import Gate
from enforcer.connections.remembered import Memory
from enforcer.keeping.host import HostKernel, mark_writers
from enforcer.keeping.keep import Keeper
from enforcer.keeping.repair import Repairer
from enforcer.kernel.backend import Backend, detect
from enforcer.kernel.drift import Watch
from enforcer.kernel.ipset import Sets
from enforcer.readback.status import Denied
from enforcer.steady import steady
from policy.cidr import Address
from policy.errors import HostRefused, Problem
from policy.model import Cluster

# A turn may wait for the xtables lock; longer than this and the loop is taken for dead.
_LONGEST_TURN = 120.0
# A first sync takes seconds.
_LOADING = 60.0
ReadFiles = Callable[[], tuple[Cluster, Sequence[Problem]]]


def run(settings: Settings, read_files: ReadFiles | None = None) -> None:
    """Enforces until SIGTERM or SIGINT; rules stay. `read_files` takes the place of an API server. HostRefused or
    ApiError, in one line, where it can't begin."""
    with ExitStack() as stack:
        stack.enter_context(SingleAgent(settings.state_dir, settings.handover))
        agent = Agent(settings, read_files, stack)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: agent.loop.stop())
        log.info("begins", node=settings.node, backend=agent.backend.mode, mode=settings.mode)
        gc.disable()  # what is loaded first stays, and to look through it again and again would cost seconds
        # An API server that is away for long must not cost memory: each try leaves some.
        deadline = time.monotonic() + _LOADING
        agent.loop.run(until=lambda: agent.loop.followed or time.monotonic() >= deadline)
        gc.enable()
        agent.loop.run(until=lambda: agent.loop.followed)
        gc.collect()
        gc.freeze()
        agent.loop.run()
        log.info("ends; the rules stay", node=settings.node)


class Agent:
    """Everything that lives until `stack` ends. Made by the thread that then runs `loop`."""

    def __init__(self, settings: Settings, read_files: ReadFiles | None, stack: ExitStack) -> None:
        self._settings = settings
        self._clock = time.monotonic
        self._followers: list[links.HostLinks | CniResults] = []
        self.backend = usable_backend(settings)
        self.inbox: Inbox[Message] = Inbox(self._clock)
        api = None if read_files else connect(settings.kubeconfig or None, settings.context or None)
        memory = Memory(Path(settings.state_dir) / "flows")
        leaving = Leaving(memory.load_interfaces())
        knowledge = Knowledge(settings, links.dump(), Heard(KINDS), leaving=leaving)
        kernel = stack.enter_context(HostKernel(self.backend, stack.enter_context(Sets())))
        before = [kernel.read(family) for family in self.backend.families]
        self.gate = Gate()
        self.keeper = Keeper(knowledge.view(frozenset()), self.backend.families, kernel)
        first = AgentStatus(
            version=version("podfence"), node=settings.node, backend=self.backend.mode, mode=settings.mode
        )
        self.board = Board(first)
        self.metrics = Metrics(lambda: self.board.status, self._denied)
        self.tales = Tales(self.keeper.index, self.gate, self.metrics.denials_lost.inc)
        self.ender = self._make_ender(memory)
        reporter = self._make_reporter(api, stack) if api else None
        programmed = Programmed(settings.state_dir)
        publisher = Publisher(
            self.board, self.metrics, reporter, programmed, memory, self.ender, self.backend.families, self._clock
        )
        self.loop = Loop(
            knowledge,
            self.inbox,
            self.keeper,
            self.gate,
            self.ender,
            lambda keeper: Repairer(keeper, stack.enter_context(Watch(self.backend)), every=settings.resync),
            publisher,
            Nudges(self._clock),
            enforced_before=any(actual.tables.chains for actual in before),
            old_marks=frozenset(mark for actual in before for mark in installed_marks(actual)),
            clock=self._clock,
        )
        self._begin(api, read_files, stack, publisher)

    def _begin(self, api: Api | None, read_files: ReadFiles | None, stack: ExitStack, publisher: Publisher) -> None:
        """Everybody who tells the loop, or answers for it."""
        settings, put = self._settings, self.inbox.put
        if settings.listen:
            sources = Sources(lambda: self.board.status, self._ails, self.metrics.page)
            stack.enter_context(HttpServer(settings.listen, sources))
        stack.enter_context(LocalServer(settings.state_dir, self._answers))
        self.tales.begin(settings.log_group, stack, self._restarted)
        self.ender.start()
        stack.callback(self.ender.stop)
        host_links = stack.enter_context(links.HostLinks(put))
        publisher.links_fail = lambda: host_links.failure or ""
        self._followers.append(host_links)
        if settings.cni_results:
            self._followers.append(stack.enter_context(CniResults(put, Path(settings.cni_results))))
        if api:
            watchers = Watchers(resources(settings.node), api, put, complain=self._restarted)
            publisher.count_watches(watchers)
            watchers.start()
            stack.callback(watchers.stop)
        elif read_files:
            files = FileWatcher(settings.files, read_files, settings.node, put)
            steady(files.run, "files", self._restarted).start()
            stack.callback(files.stop)

    def _make_ender(self, memory: Memory) -> Ender:
        return Ender(
            self.keeper.index,
            self.gate,
            memory,
            end=self._settings.existing_flows == "end",
            observe=lambda stage, seconds: self.metrics.flow_ending.labels(stage).observe(seconds),
            purged=lambda: self.inbox.put(Again("flows of former owners are gone")),
            complain=log.warning,
        )

    def _make_reporter(self, api: Api, stack: ExitStack) -> Reporter:
        reporter = Reporter(api, self._settings.node, self._settings.taint, _now, log.warning)
        steady(partial(reporter.run, Backoff(0.5, 60.0)), "reports", self._restarted).start()
        stack.callback(reporter.end)
        return reporter

    def _restarted(self, why: str) -> None:
        self.metrics.threads_restarted.inc()
        log.error(why)

    def _ails(self) -> str:
        """The loop turns, and nobody whom it hears things from has fallen silent by a defect: that would look like a
        node where nothing happens."""
        if self._clock() - self.loop.turned >= _LONGEST_TURN:
            return "the loop has not turned for too long"
        dead = [type(each).__name__ for each in self._followers if not each.alive]
        return f"not followed any more: {', '.join(dead)}" if dead else ""

    def _denied(self) -> list[Denied]:
        return denied_packets(self.backend.families, self._pod_of)

    def _pod_of(self, address: Address) -> str:
        with self.gate:
            pod = self.keeper.index.pod_at(address)
        return pod.key if pod else ""

    def _answers(self, question: Mapping[str, Any]) -> Iterable[object]:
        """What the local socket says."""
        match question.get("ask"):
            case "status":
                yield {**msgspec.to_builtins(self.board.status), "flows": msgspec.to_builtins(self.ender.counts)}
            case "programmed":
                kind, *key = (str(question.get(each, "")) for each in ("kind", "namespace", "name"))
                known = next((each for each in KINDS if each == kind), None)
                yield {"programmed": known is not None and self.loop.programmed(known, *key)}
            case "denials":
                yield from self.tales.tell(follow=bool(question.get("follow")))
            case other:
                yield {"error": f"nobody here knows about {other!r}; ask for status, programmed or denials"}


def usable_backend(settings: Settings) -> Backend:
    """HostRefused where the host can't be used as it is."""
    backend = detect(settings.backend)
    for rule in mark_writers(backend, settings.mark):
        raise HostRefused(
            f"this rule writes the bit {settings.mark:#x} of connection marks, which is podfence's by --mark: {rule}"
        )
    return backend


def _now() -> str:
    """As the API writes moments (RFC 3339)."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
