"""How things went, for all who ask: log lines, metrics, the board, Events, the readiness gate and the startup taint."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from enforcer.agent import log
from enforcer.agent.board import Board
from enforcer.agent.loop import Loop
from enforcer.agent.metrics import Metrics
from enforcer.agent.notice import TOO_LARGE, notices
from enforcer.agent.programmed import Programmed
from enforcer.agent.report import About, Gate, Reporter, Said
from enforcer.attachment.leaving import Who
from enforcer.cluster.watchers import Watchers
from enforcer.connections.ender import Ender
from enforcer.connections.remembered import Memory
from enforcer.keeping.repair import Repair
from enforcer.kernel.bridges import bridge_filtering
from enforcer.kernel.weaknesses import weaknesses
from enforcer.rules.layout import NodeView
from enforcer.rules.modes import mode_of, mode_problems
from enforcer.rules.steps import DropSet, Plan, Transaction
from policy.cidr import Family
from policy.errors import HostRefused
from policy.model import DIRECTIONS, Pod

_LOUD = 60.0  # seconds between reminders that the node is open
# Seconds from one picture to the next, where nothing changed and where something did.
_FRESH, _GAP = 1.0, 0.2
_GRACE = 5.0


class Publisher:
    """Called by the loop's thread only. `reporter` is None where there is no API server."""

    def __init__(
        self,
        board: Board,
        metrics: Metrics,
        reporter: Reporter | None,
        programmed: Programmed,
        memory: Memory,
        ender: Ender,
        families: tuple[Family, ...],
        clock: Callable[[], float],
    ) -> None:
        self._board = board
        self._metrics = metrics
        self._reporter = reporter
        self._programmed = programmed
        self._memory = memory
        self._kept: Mapping[Who, int] | None = None
        self._forgetful = ""  # why interfaces can't be written down
        self._ender = ender
        self._families = families
        self._unfiltered: str | None = None
        self._unattached: dict[str, float] = {}  # pods by key, and since when
        self._overdue: dict[str, str] = {}
        self._watchers: Watchers | None = None
        self.links_fail: Callable[[], str] = lambda: ""  # why links and routes can't be read for the moment
        self._counted: dict[str, int] = {"ended": 0, "restored": 0}
        self._clock = clock
        self._dirty = True
        self._next = 0.0
        self._reminded = 0.0
        self._untainted = False
        self._stumbled: dict[str, float] = {}  # the last defect that was told of, and when

    def count_watches(self, watchers: Watchers) -> None:
        self._watchers = watchers

    def applied(self, plans: tuple[Plan, ...], why: str, heard: float, began: float, ended: float) -> None:
        if any(plans):
            self._dirty = True
            self._metrics.event_to_kernel.observe(ended - heard)
            spent, waited = (round(each * 1000, 1) for each in (ended - began, began - heard))
            log.info("rules follow", why=why, steps=[*map(summary, plans)], ms=spent, waited_ms=waited)

    def repaired(self, repairs: tuple[Repair, ...]) -> None:
        self._dirty = True
        status = self._board.status
        found = "; ".join(map(str, repairs))
        self._board.status = replace(status, repaired=status.repaired + 1, last_repair=found)
        self._metrics.repaired.inc()
        log.warning("somebody else changed podfence's rules; they are repaired", found=found)

    def failed(self, error: HostRefused) -> None:
        self._dirty = True
        status = self._board.status
        self._board.status = replace(status, failed_writes=status.failed_writes + 1, last_error=str(error))
        self._metrics.failed_writes.inc()
        log.error("the kernel refuses; what was enforced stays", error=str(error))

    def stumbled(self, error: Exception) -> None:
        """The trace is told once a minute, of equal ones."""
        self._dirty = True
        status, now, what = self._board.status, self._clock(), f"{type(error).__name__}: {error}"
        self._board.status = replace(status, defects=status.defects + 1, last_error=what)
        self._metrics.defects.inc()
        if now >= self._stumbled.get(what, -_LOUD) + _LOUD:
            self._stumbled = {what: now}
            trace = "".join(traceback.format_exception(error))
            log.error("a defect of podfence; what was enforced stays", error=what, trace=trace)

    def turned(self, loop: Loop) -> None:
        """After every turn; what costs is done after changes, and once a second."""
        now = self._clock()
        if loop.knowledge.opened and now >= self._reminded + _LOUD:
            self._reminded = now
            log.warning("THE NODE IS OPEN: nothing is enforced", by=loop.knowledge.opened)
        if now < self._next - (_FRESH - _GAP if self._dirty else 0):
            return
        self._dirty, self._next = False, now + _FRESH
        self._count()
        self._overdue = self._unattached_for_long(loop, now)
        bridged = bool(loop.view and loop.view.pod_bridges and loop.view.mode != "off")
        self._unfiltered = bridge_filtering(self._families) if bridged else None
        self._publish(loop, now, weaknesses(bridged) if loop.view and loop.view.mode != "off" else ())
        self._keep(loop.knowledge.leaving.last)
        self._tell(loop)

    def _keep(self, interfaces: Mapping[Who, int]) -> None:
        """For an agent that comes after this one. One that knows less takes what it finds for the pods' own."""
        if interfaces == self._kept:
            return
        try:
            self._memory.save_interfaces(interfaces)
            self._kept, self._forgetful = interfaces, ""
        except HostRefused as error:
            if str(error) != self._forgetful:
                self._forgetful = str(error)
                log.warning("the next agent won't know which interfaces pods had", error=str(error))

    def _unattached_for_long(self, loop: Loop, now: float) -> dict[str, str]:
        """With the reason. A new pod's interface is often a moment late, and that is no news."""
        unattached = loop.knowledge.attached.unattached
        self._unattached = {key: self._unattached.get(key, now) for key in unattached}
        return {key: why for key, why in unattached.items() if now - self._unattached[key] >= _GRACE}

    def _count(self) -> None:
        """What others count, brought into the metrics."""
        flows, counted = self._ender.counts, self._counted
        self._metrics.flows_ended.inc(flows.ended + flows.forgotten - counted["ended"])
        self._metrics.flows_restored.inc(flows.restored - counted["restored"])
        counted |= {"ended": flows.ended + flows.forgotten, "restored": flows.restored}
        for watcher in self._watchers.watchers if self._watchers else ():
            kind, begun = watcher.resource.kind, watcher.counts.lists + watcher.counts.watches
            self._metrics.watch_restarts.labels(kind).inc(begun - counted.get(kind, 0))
            counted[kind] = begun

    def _publish(self, loop: Loop, now: float, weak: tuple[str, ...]) -> None:
        knowledge, index = loop.knowledge, loop.keeper.index
        heard, view = knowledge.heard, loop.view
        namespaces = index.namespaces
        # On a node that is off there are no rules, whatever a namespace asks for.
        mode = view.mode if view else "off"
        local = knowledge.local.values() if mode != "off" else ()
        audited = [pod for pod in local if mode_of(namespaces[pod.namespace], mode) == "audit"]
        waits = tuple(self._waits(loop))
        before = self._board.status
        found = replace(
            before,
            mode=view.mode if view else self._board.status.mode,
            phase="failing" if loop.failing else "enforcing" if loop.followed else "starting",
            opened=knowledge.opened,
            waits_for=waits,
            namespaces=sum(1 for _ in heard.objects("Namespace")),
            policies=sum(1 for _ in heard.objects("NetworkPolicy")),
            pods=len(index.pods),
            local_pods=len(knowledge.local),
            isolated={d: sum(index.allow(pod, d).isolated for pod in knowledge.local.values()) for d in DIRECTIONS},
            audited=len(audited),
            quarantined=tuple(f"{kind} {space}/{name}" for kind, space, name in knowledge.quarantine.kept),
            too_large=self._too_large(loop),
            kernel=loop.keeper.counts(),
            unattached=dict(knowledge.attached.unattached),
            weaknesses=weak,
            problems=mode_problems(namespaces)
            + tuple(str(p) for found in heard.findings.values() for f in found.values() for p in f.problems)
            + tuple(f"CNI result {file}: {reason}" for file, reason in knowledge.unreadable.items()),
            troubles={kind: trouble.reason for kind, trouble in heard.troubles.items()} | self._host_troubles(),
            stale=max((now - trouble.since for trouble in heard.troubles.values()), default=0.0),
        )
        self._board.status = found
        for notice in notices(before, found):
            say = {"info": log.info, "warning": log.warning, "error": log.error}[notice.level]
            say(notice.message, **notice.fields)

    def _host_troubles(self) -> dict[str, str]:
        return {"links": why} if (why := self.links_fail()) else {}

    def _too_large(self, loop: Loop) -> tuple[str, ...]:
        index, local = loop.keeper.index, loop.knowledge.local.values()
        return tuple(sorted({key for pod in local for d in DIRECTIONS for key in index.allow(pod, d).too_large}))

    def _waits(self, loop: Loop) -> Iterator[str]:
        heard = loop.knowledge.heard
        for kind in heard.waits_for:
            trouble = heard.troubles.get(kind)
            yield f"the first list of {kind} objects" + (f": {trouble.reason}" if trouble else "")
        if loop.failing:
            yield f"the kernel: {loop.failing}"
        elif heard.synced and not loop.followed:
            yield "the rules to follow"
        if self._unfiltered:
            yield f"bridged pods: {self._unfiltered}"
        if loop.knowledge.opened:
            yield f"the node to be closed again: opened by {loop.knowledge.opened}"
        for key, why in self._overdue.items():
            yield f"pod {key}: {why}"

    def _tell(self, loop: Loop) -> None:
        view, knowledge = loop.view, loop.knowledge
        if loop.failing or not loop.followed or view is None:
            return
        local = knowledge.local.values()
        if knowledge.opened:
            # Nothing holds here: what was said stays said, and nothing new is, the taint's end included.
            self._programmed.put([pod.uid for pod in local if pod.uid in self._programmed])
            self._say_events(loop)
            return
        holding = [pod for pod in local if self._holds(pod, view)]
        new = self._programmed.put([pod.uid for pod in holding])
        if self._reporter is None:
            return
        for pod in holding:
            if pod.uid in new and pod.gated:
                self._reporter.ready(Gate(pod.namespace, pod.name, pod.uid))
        if not self._untainted:
            self._untainted = True
            self._reporter.untaint()
        self._say_events(loop)

    def _say_events(self, loop: Loop) -> None:
        if self._reporter:
            for event in self._events(loop):
                self._reporter.say(event)

    def _events(self, loop: Loop) -> Iterator[Said]:
        """Policies that concern pods of this node, so that not every node of a cluster says the same."""
        knowledge = loop.knowledge
        spaces = {pod.namespace for pod in knowledge.local.values()}
        for key, finding in knowledge.heard.findings.get("NetworkPolicy", {}).items():
            if key and key.namespace in spaces:
                about = About("NetworkPolicy", key.namespace, key.name)
                yield Said(about, "NotUnderstood", "; ".join(map(str, finding.problems)))
        for policy_key in self._board.status.too_large:
            yield Said(About("NetworkPolicy", *policy_key.split("/")), "TooLarge", TOO_LARGE)
        for kind, space, name in knowledge.quarantine.kept:
            about = About("Pod" if kind == "Pod" else "NetworkPolicy", space, name)
            yield Said(about, "Quarantined", "podfence or the kernel can't handle it: it is closed meanwhile")
        for pod_key, why in self._overdue.items():
            pod = knowledge.local[pod_key]
            about = About("Pod", pod.namespace, pod.name, pod.uid)
            yield Said(about, "NotAttached", f"network policies can't be enforced, and the pod stays closed: {why}")
        node = knowledge.heard.node
        about_node = About("Node", "", node.name, node.uid) if node else None
        if knowledge.opened and about_node:
            yield Said(about_node, "PolicyOpened", f"no network policy is enforced on this node: {knowledge.opened}")
        if self._unfiltered and about_node:
            yield Said(about_node, "BridgeNotFiltered", f"bridged pods are not enforced: {self._unfiltered}")

    def _holds(self, pod: Pod, view: NodeView) -> bool:
        """Whether the pod's policies do what they say."""
        attachment = view.attachment(pod.key)
        if attachment is None or (attachment.bridge and self._unfiltered):
            return False
        return not any(address in view.closed for address in pod.addresses)


def summary(plan: Plan) -> str:
    """One family's steps in a few words."""
    written = sum(len(step.write) for step in plan if isinstance(step, Transaction))
    deleted = sum(len(step.delete) for step in plan if isinstance(step, Transaction))
    dropped = sum(isinstance(step, DropSet) for step in plan)
    parts = [f"{len(plan) - dropped} steps"]
    parts += [f"{written} chains written"] if written else []
    parts += [f"{deleted} chains deleted"] if deleted else []
    parts += [f"{dropped} sets dropped"] if dropped else []
    return ", ".join(parts) if plan else "nothing"
