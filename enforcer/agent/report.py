"""What the agent tells the API server: Events, the readiness gate of local pods, and that the node is ready.

Nothing that is enforced hangs on it. It is said by a thread of its own, again until it is heard, and what is overtaken
meanwhile is not said at all. What the server refuses keeps nothing else waiting: a namespace that is on its way out
takes no Event, and a role may lack a verb.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from enforcer.agent.backoff import Backoff
from enforcer.cluster.api import JSON_PATCH, STRATEGIC_MERGE_PATCH
from policy.errors import ApiRefused, PodfenceError
from policy.model import READINESS_GATE

TAINT = "podfence.io/not-ready"
COMPONENT = "podfence"
# Kubernetes takes 1,024 characters of an Event's message.
_LONGEST = 1000
_CONFLICT, _GONE, _INVALID = 409, 404, 422
_UNAUTHORIZED, _FORBIDDEN, _TIMEOUT, _TOO_MANY = 401, 403, 408, 429
_MOST_EVENTS = 500
# As long as the API server keeps an Event.
_HOUR = 3600.0


class Api(Protocol):
    """What of the connection is needed; ApiRefused with its status, or another PodfenceError."""

    def get(self, what: str, path: str) -> bytes: ...

    def send(self, verb: str, what: str, method: str, path: str, body: bytes, content_type: str) -> bytes: ...


class About(Struct, frozen=True):
    """The object of an Event."""

    kind: Literal["Pod", "NetworkPolicy", "Node"]
    namespace: str
    name: str
    uid: str = ""


class Said(Struct, frozen=True):
    """One Event; of equal ones the first is said."""

    about: About
    reason: str
    message: str
    warning: bool = True


class Gate(Struct, frozen=True):
    """A pod that waits for its policies, by the identity that it has now."""

    namespace: str
    name: str
    uid: str


class Reporter:
    """`say`, `ready` and `untaint` may be called by any thread, and never wait. `run` belongs to one thread."""

    def __init__(
        self,
        api: Api,
        node: str,
        untaints: bool,
        now: Callable[[], str],
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._node = node
        self._untaints = untaints
        self._now = now
        self._warn = warn
        self._wake = threading.Condition()
        self._events: dict[Said, None] = {}
        self._known: set[Said] = set()
        self._known_since = clock()
        self._clock = clock
        self._gates: dict[Gate, None] = {}
        self._resting: list[Callable[[], None]] = []  # what is forbidden for the moment, as the calls that ask for it
        self._taint = False
        self._ended = False

    def say(self, event: Said) -> None:
        # What is known holds no more than is said, whatever somebody's policy brings a message to.
        event = msgspec.structs.replace(event, message=event.message[:_LONGEST])
        with self._wake:
            # Whoever says more than that goes on saying it: to forget some at once would be to say all of it for ever.
            if len(self._known) >= _MOST_EVENTS and self._clock() - self._known_since > _HOUR:
                self._known, self._known_since = set(), self._clock()
            if event not in self._known and len(self._known) < _MOST_EVENTS:
                self._known.add(event)
                self._events[event] = None
                self._wake.notify()

    def ready(self, gate: Gate) -> None:
        """The policies of this pod hold on this node."""
        with self._wake:
            self._gates[gate] = None
            self._wake.notify()

    def untaint(self) -> None:
        """The node enforces: pods may be scheduled to it."""
        with self._wake:
            self._taint = self._untaints
            self._wake.notify()

    def end(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify()

    def run(self, backoff: Backoff) -> None:
        """Until `end`. What the API server does not take for the moment is tried again; what it refuses is given up,
        with a warning."""
        while True:
            with self._wake:
                while not (self._ended or self._waiting()):
                    if not self._wake.wait_for(self._is_due, backoff.next() if self._resting else None):
                        self._ask_again()
                if self._ended:
                    return
            try:
                self._one()
                if not self._resting:
                    backoff.reset()
            except Exception as error:  # a defect of ours too: a thread that ended would leave pods unready unseen
                what = str(error) if isinstance(error, PodfenceError) else f"{type(error).__name__}: {error}"
                self._warn(f"can't be told: {what}")
                with self._wake:
                    self._wake.wait_for(lambda: self._ended, backoff.next())

    def _is_due(self) -> bool:
        return self._ended or self._waiting()

    def _waiting(self) -> bool:
        return bool(self._taint or self._gates or self._events)

    def _ask_again(self) -> None:
        resting, self._resting = self._resting, []
        for each in resting:
            each()

    def _one(self) -> None:
        """Says one thing; it is crossed out once it has been heard, or can't be said at all."""
        with self._wake:
            gate, event = next(iter(self._gates), None), next(iter(self._events), None)
        if self._taint:
            try:
                self._taint = not self._remove_taint()
            except ApiRefused as error:
                self._taint = False
                self._rest(error, self.untaint)
        elif gate:
            path = f"/api/v1/namespaces/{gate.namespace}/pods/{gate.name}/status"
            body = msgspec.json.encode(gate_patch(gate, self._now()))
            try:
                self._tolerant("patch", "pods/status", "PATCH", path, body, STRATEGIC_MERGE_PATCH)
            except ApiRefused as error:
                self._rest(error, partial(self.ready, gate))
            with self._wake:
                self._gates.pop(gate, None)
        elif event:
            path = f"/api/v1/namespaces/{event.about.namespace or 'default'}/events"
            body = msgspec.json.encode(event_body(event, self._node, self._now()))
            try:
                self._tolerant("create", "events", "POST", path, body, "application/json")
            except ApiRefused as error:
                if error.status >= 500 or error.status in (_UNAUTHORIZED, _TIMEOUT, _TOO_MANY):
                    raise
                self._warn(f"can't be told, and is given up: {error}")
            with self._wake:
                self._events.pop(event, None)

    def _rest(self, error: ApiRefused, ask: Callable[[], None]) -> None:
        """What is forbidden may be allowed later, and keeps nothing else waiting until then."""
        if error.status != _FORBIDDEN:
            raise error
        self._warn(f"can't be told: {error}")
        with self._wake:
            self._resting.append(ask)

    def _tolerant(self, *request: Any) -> None:
        """An Event that is there already, a pod that is gone or another one by now: nothing is left to say."""
        try:
            self._api.send(*request)
        except ApiRefused as error:
            if error.status not in (_CONFLICT, _GONE, _INVALID):
                raise

    def _remove_taint(self) -> bool:
        """Whether the taint is gone. Another writer's change in between is found out, and it is tried again."""
        path = f"/api/v1/nodes/{self._node}"
        try:
            patch = taint_patch(msgspec.json.decode(self._api.get("nodes", path)))
            if not patch:
                return True
            self._api.send("patch", "nodes", "PATCH", path, msgspec.json.encode(patch), JSON_PATCH)
        except ApiRefused as error:
            if error.status not in (_CONFLICT, _INVALID, _GONE):
                raise
            return error.status == _GONE
        return True


def taint_patch(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A JSON patch (RFC 6902) that takes our taint out, if it still stands where it was seen; none where it is not."""
    taints = node.get("spec", {}).get("taints") or []
    patch = []
    for at in reversed([number for number, taint in enumerate(taints) if taint.get("key") == TAINT]):
        patch.append({"op": "test", "path": f"/spec/taints/{at}/key", "value": TAINT})
        patch.append({"op": "remove", "path": f"/spec/taints/{at}"})
    return patch


def gate_patch(gate: Gate, now: str) -> dict[str, Any]:
    """A strategic merge of one condition; the uid makes it another pod's nothing."""
    condition = {
        "type": READINESS_GATE,
        "status": "True",
        "reason": "Programmed",
        "message": "the pod's network policies hold on its node",
        "lastTransitionTime": now,
    }
    return {"metadata": {"uid": gate.uid}, "status": {"conditions": [condition]}}


def event_body(event: Said, node: str, now: str) -> dict[str, Any]:
    """A core/v1 Event. Its name follows from what is said, so that of many nodes that say the same one is heard."""
    about, message = event.about, event.message[:_LONGEST]
    digest = blake2b(repr((about, event.reason, message)).encode(), digest_size=8).hexdigest()
    versions = {"NetworkPolicy": "networking.k8s.io/v1"}
    involved = {"kind": about.kind, "apiVersion": versions.get(about.kind, "v1"), "name": about.name}
    involved |= {"namespace": about.namespace} if about.namespace else {}
    involved |= {"uid": about.uid} if about.uid else {}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name[:200]}.{digest}", "namespace": about.namespace or "default"},
        "involvedObject": involved,
        "reason": event.reason,
        "message": message,
        "type": "Warning" if event.warning else "Normal",
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
