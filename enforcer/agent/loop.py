"""The one thread that owns index and dataplane: it drains the inbox, compiles once, plans, applies, and tells others.

before the first sync    nothing is taken away: a node that was enforced stays as it is, another gets the baseline,
                         which closes what is not known yet
then, for each batch     what was heard ─► index ─► owners of addresses ─► rules in force ─► flows, gates, board
where the kernel refuses what was in force stays; it is read back, and tried again; what it never takes (`refusals`) is
                         as what we stumble over
where we stumble         over a defect of ours: once more from all that is known, then without the objects that it takes
                         (`quarantine`); rules in force stay meanwhile
in between               others' changes are looked for, what is left over is tidied, and after `resync` seconds
                         everything is read back whether anything was noticed or not
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from compiler.changes import Event
from enforcer.agent.backoff import Backoff
from enforcer.agent.hearers import Flows, Observer
from enforcer.agent.inbox import Inbox
from enforcer.agent.knowledge import Knowledge, Message
from enforcer.agent.quarantine import Kept, key_of
from enforcer.agent.refusals import Refusals
from enforcer.agent.trial import culprits
from enforcer.attachment.hostview import own_addresses
from enforcer.cluster.news import Changed, Kind, Listed, Trouble
from enforcer.connections.concern import (
    NOTHING,
    Concern,
    concern,
    deciding,
    owners_of,
    touched,
    treated_otherwise,
    went_abroad,
)
from enforcer.connections.ender import Moment
from enforcer.connections.gate import Gate
from enforcer.keeping.keep import Keeper
from enforcer.keeping.repair import Repairer
from enforcer.rules.layout import NodeView
from enforcer.rules.modes import mode_of
from enforcer.rules.steps import Plan
from policy.cidr import Address
from policy.errors import HostRefused

# How long a turn waits for messages; others' changes are looked for as often.
TURN = 0.2
_FIRST_RETRY, _LAST_RETRY = 0.2, 10.0
# For so many seconds at most it is looked for what we stumble over.
_SEARCH = 30.0
_ALL_FLOWS = Concern(everything=True, restores=True)


class Loop:
    """After a turn without `failing`, the kernel holds what was heard, once every kind has been. One thread only."""

    def __init__(
        self,
        knowledge: Knowledge,
        inbox: Inbox[Message],
        keeper: Keeper,
        gate: Gate,
        flows: Flows,
        repairer: Callable[[Keeper], Repairer],
        observer: Observer,
        nudge: Callable[[Iterable[Address]], None],
        enforced_before: bool,
        old_marks: frozenset[int],
        clock: Callable[[], float],
    ) -> None:
        """`enforced_before`: rules of an earlier agent are in the kernel; they stay until every kind was heard."""
        self.knowledge = knowledge
        self.keeper = keeper
        self.failing = ""
        self.followed = False  # whether the rules have followed a whole cluster
        self.turned = clock()
        self._inbox = inbox
        self._gate = gate
        self._flows = flows
        self._make_repairer = repairer
        self._repairer: Repairer | None = None
        self._observer = observer
        self._nudge = nudge
        self._untouched = enforced_before
        self._old_marks = old_marks
        self._clock = clock
        self._backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        self._refusals = Refusals()
        self._retry_at = 0.0
        self._look_at = 0.0
        self.view: NodeView | None = None
        self._closed = frozenset[Address]()
        self._concern = NOTHING
        self._stopping = False
        self._broken = False  # a defect left index or dataplane in a state that nobody knows
        self._current = False

    def stop(self) -> None:
        """From any thread: `run` returns after the turn that is under way. Rules stay."""
        self._stopping = True

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        while not (self._stopping or until()):
            self.turn(TURN)

    def turn(self, wait: float) -> None:
        """One batch, or one look around."""
        messages = self._inbox.drain(wait)
        if messages:
            self._current = False
        for _, message in messages:
            self._take(message)
        self.knowledge.look_for_opening()
        now = self.turned = self._clock()
        if self._is_due(now):
            self._follow(messages[0][0] if messages else now)
        elif self.view and not self.failing and now >= self._look_at:
            self._look_at = now + TURN
            self._look_around()
        behind = self.failing or self._broken or self.knowledge.changed or self._closed
        self._current = self.followed and not behind
        with self._stumbling():
            self._observer.turned(self)

    def _take(self, message: Message) -> None:
        """What a defect keeps from being taken in is missing, which is said until the agent starts anew."""
        with self._stumbling() as stumbled:
            self.knowledge.take(message)
        if stumbled:
            self._broken = True
            if isinstance(message, Listed | Changed):
                reason = f"a defect of podfence: {stumbled[0]!r}"
                self.knowledge.take(Trouble(message.kind, reason, self._clock()))

    @contextmanager
    def _stumbling(self) -> Iterator[list[Exception]]:
        """A defect of ours ends no block but this one. Without memory nothing can go on: the process ends, the rules
        stay."""
        stumbled: list[Exception] = []
        try:
            yield stumbled
        except (HostRefused, MemoryError):
            raise
        except Exception as error:
            stumbled.append(error)
            self._observer.stumbled(error)

    def programmed(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether the kernel holds all that was heard up to that object: every earlier message of its kind is in force
        too, and a pod of this node is no longer closed. Any thread may ask; a busy loop says no."""
        if not self.knowledge.heard.knows(kind, namespace, name):
            return False
        key, view = f"{namespace}/{name}", self.view
        # In this order: what is known now is not in the kernel before the loop says again that all is.
        if kind == "Pod" and key in self.knowledge.local and (view is None or view.attachment(key) is None):
            return False
        return self._current

    def _is_due(self, now: float) -> bool:
        knowledge = self.knowledge
        if self.failing:
            return now >= self._retry_at
        if self._untouched and not (knowledge.heard.synced or knowledge.opened):
            return False
        return knowledge.changed or self._broken or self.view is None or (knowledge.heard.synced and not self.followed)

    def _follow(self, heard: float) -> None:
        knowledge, began = self.knowledge, self._clock()
        why = knowledge.why or ("the first sync" if knowledge.heard.synced else "nothing is known yet: the baseline")
        batch = tuple(knowledge.events)
        ways = (self._bring, self._bring_anew, lambda: self._bring_without(self._culprits(batch)))
        first = 2 if self._refusals.new() else int(self._broken)
        try:
            for way in ways[first:]:
                with self._stumbling() as stumbled:
                    plans = way()
                    break
                self._broken = True
            else:
                raise _defect(stumbled)
        except HostRefused as error:
            self._fail(error)
            return
        if plans is None:
            return
        self._untouched, self._broken, self.failing = False, False, ""
        self._backoff.reset()
        self._refusals.passed()
        self._observer.applied(plans, why, heard, began, self._clock())

    @property
    def _behind(self) -> bool:
        """Whether there is more to do than what the next batch asks for."""
        return bool(not self.followed or self.failing or self._concern or self.keeper.behind)

    def _bring(self) -> tuple[Plan, ...] | None:
        """What is known and not followed yet, into the kernel; None where it changes nothing for the node."""
        knowledge = self.knowledge
        with self._gate.changing(touched(self.keeper.index, knowledge.events)):
            changes = self.keeper.take(knowledge.events)
        idle = not (knowledge.again or changes.subjects or deciding(changes) or self._behind)
        knowledge.followed()
        if idle:
            return None
        if knowledge.heard.synced:
            self._closed = self._flows.hand_over(owners_of(knowledge.present, self.keeper.index))
        view = knowledge.view(self._closed)
        self._concern = self._concern.joined(
            concern(changes, knowledge.local, treated_otherwise(self.view, view, knowledge.local))
        ).joined(went_abroad(self.view, view))
        self._check()
        plans = self.keeper.bring(view)
        self._seen(plans)
        self.view = view
        self._end_flows(view)
        return plans

    def _bring_anew(self) -> tuple[Plan, ...] | None:
        """Everything that is known, from nothing: also what a defect kept from being followed."""
        self.knowledge = self.knowledge.anew(self.knowledge.quarantine)
        self._concern = _ALL_FLOWS
        with self._gate.changing():
            self.keeper.begin_anew()
        return self._bring()

    def _bring_without(self, culprits: Iterable[Kept]) -> tuple[Plan, ...] | None:
        for each in culprits:
            self.knowledge.quarantine.kept[key_of(each.suspect)] = each
        return self._bring_anew()

    def _culprits(self, batch: Iterable[Event]) -> list[Kept]:
        """The objects that we stumble over: sooner of the batch with which it began than of all."""
        until = self._clock() + _SEARCH
        families, refused = self.keeper.families, self._refusals.elements
        return culprits(self.knowledge, families, batch, lambda: self._clock() > until, refused)

    def _end_flows(self, view: NodeView) -> None:
        """Only once a whole cluster is known: before that every pod is a stranger."""
        knowledge = self.knowledge
        if not knowledge.heard.synced:
            return
        namespaces = self.keeper.index.namespaces
        moment = Moment(
            view,
            tuple(knowledge.local.values()),
            own_addresses(knowledge.host),
            # A node that is off has no rules, whatever a namespace asks for.
            lambda pod: view.mode != "off" and mode_of(namespaces[pod.namespace], view.mode) == "enforce",
        )
        if self.followed:
            self._flows.tell(self._concern, moment)
        else:
            self._flows.begin(moment, self._old_marks)
        self._concern, self.followed = NOTHING, True

    def _look_around(self) -> None:
        try:
            with self._stumbling() as stumbled:
                self._nudge(self.knowledge.unattached)
                self._check()
                if self._concern and self.view:
                    self._end_flows(self.view)
                if any(plans := self.keeper.tidy()):
                    self._seen(plans)
            if stumbled:
                self._broken = True
                raise _defect(stumbled)
        except HostRefused as error:
            self._fail(error)

    def _check(self) -> None:
        """Undoes what others did; before each change of our own, behind which it would hide."""
        if self._repairer and (repairs := self._repairer.check()):
            self._observer.repaired(repairs)
            # Connections may have been opened meanwhile that no rule allows.
            self._concern = self._concern.joined(_ALL_FLOWS)

    def _seen(self, plans: tuple[Plan, ...]) -> None:
        """What there is now is our own doing, as far as these plans do it."""
        if self._repairer is None:
            self._repairer = self._make_repairer(self.keeper)
        else:
            self._repairer.ours(plans)

    def _fail(self, error: HostRefused) -> None:
        self.failing = str(error)
        self._refusals.failed(error)
        self._retry_at = self._clock() + self._backoff.next()
        self._observer.failed(error)


def _defect(stumbled: list[Exception]) -> HostRefused:
    (error,) = stumbled
    return HostRefused(f"a defect of podfence: {type(error).__name__}: {error}")
