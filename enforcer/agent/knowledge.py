"""What the agent knows of cluster and node, and what of it the rules have not followed yet. Pure.

Three sources meet here: the cluster as it is heard of, the node's links as they are seen, and addresses that the
container runtime wrote down before the API server could say them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from compiler.changes import Deleted, Event, pod_key
from enforcer.agent.opening import opened_by
from enforcer.agent.quarantine import Quarantine
from enforcer.agent.settings import Settings
from enforcer.attachment.attach import Attached, attach
from enforcer.attachment.cni_cache import AddressGone, AddressKnown, CacheEvent, Hints, Unreadable, with_hints
from enforcer.attachment.hostview import HostView
from enforcer.attachment.leaving import Leaving
from enforcer.cluster.heard import Heard
from enforcer.cluster.news import News
from enforcer.rules.layout import NodeView, is_local
from enforcer.rules.view import abroad, host_addresses
from policy.cidr import Address, Prefix
from policy.model import Pod

_NAMED = 5


class Again(Struct, frozen=True):
    """Nothing new was heard, but something that the rules follow may have changed; `why` is for the log."""

    why: str


Message = News | HostView | CacheEvent | Again


class Knowledge:
    """`events` and `view` are what a keeper has to be given; after `followed` there is nothing that it lacks.

    `again` says what may be another now of what the rules follow besides objects. `local` are the node's pods that
    policies may select and that have an address, as `layout.is_local` has it."""

    def __init__(
        self,
        settings: Settings,
        host: HostView,
        heard: Heard,
        quarantine: Quarantine | None = None,
        leaving: Leaving | None = None,
    ) -> None:
        self.heard = heard
        self.host = host
        self.local: dict[str, Pod] = {}
        self.opened = ""
        self.quarantine = quarantine or Quarantine()
        self.events: list[Event] = []
        self.unreadable: dict[str, str] = {}  # CNI results by file, with the reason
        self._settings = settings
        self._hints = Hints()
        self._here: dict[str, Pod] = {}  # the node's pods by key, as the API server says them
        self._abroad: dict[str, frozenset[Address]] = {}  # by key, of other nodes' pods
        self._hosts = frozenset[Address]()
        self._attached: Attached | None = None
        self.leaving = leaving or Leaving()
        self.again: list[str] = []

    @property
    def node(self) -> str:
        return self._settings.node

    @property
    def changed(self) -> bool:
        return bool(self.events or self.again)

    def anew(self, quarantine: Quarantine) -> Knowledge:
        """The same, with nothing followed, and with `quarantine` for what is heard."""
        found = Knowledge(self._settings, self.host, self.heard, quarantine, Leaving(self.leaving.last))
        found._hints, found.opened, found.unreadable = self._hints, self.opened, self.unreadable
        found._hosts = self._hosts
        found._hear_all(self.heard.everything() if self.heard.synced else ())
        return found

    def followed(self) -> None:
        self.events, self.again = [], []

    @property
    def why(self) -> str:
        """What the rules have not followed yet, in one line."""
        said = (self.again + [_what(event) for event in self.events[:_NAMED]])[:_NAMED]
        more = len(self.again) + len(self.events) - len(said)
        return ", ".join(said) + (f", and {more} more" if more else "")

    def take(self, message: Message) -> None:
        match message:
            case Again():
                self.again.append(message.why)
            case HostView():
                if message != self.host:
                    self.host, self._attached = message, None
                    self.again.append("links or addresses of the node")
            case AddressKnown() | AddressGone() | Unreadable():
                self._hint(message)
            case _:
                before, blocks = self.heard.node, self.pod_cidrs
                self._hear_all(self.heard.take(message))
                if self.heard.node != before:
                    self.again.append("the Node object")
                    self._attached = None
                if self.pod_cidrs != blocks:
                    self._look_elsewhere([pod for pod in self.heard.objects("Pod") if isinstance(pod, Pod)])

    def _hint(self, message: CacheEvent) -> None:
        self.unreadable.pop(message.file, None)
        if isinstance(message, Unreadable):
            self.unreadable[message.file] = message.reason
        concerned = self._hints.apply(message)
        for pod in [pod for pod in self._here.values() if pod.uid in concerned]:
            self._hear(pod)

    def _hear_all(self, events: Iterable[Event]) -> None:
        known = len(self.events)
        for event in events:
            self._hear(event)
        self._look_elsewhere(self.events[known:])

    def _hear(self, event: Event) -> None:
        said, event = event, self.quarantine.admit(event)
        if isinstance(event, Pod):
            here = event.node == self._settings.node
            if here:
                self._here[event.key] = said if isinstance(said, Pod) else event
                event = with_hints(event, self._hints, self._settings.node)
            else:
                self._here.pop(event.key, None)
            self._place(event.key, event if is_local(event, self._settings.node) else None)
        elif isinstance(event, Deleted) and event.kind == "Pod":
            key = f"{event.namespace}/{event.name}"
            self._here.pop(key, None)
            self._place(key, None)
        self.events.append(event)

    def _place(self, key: str, pod: Pod | None) -> None:
        """Another pod of the node, or another interface to look for; `attach` asks for no more of a pod."""
        before = self.local.pop(key, None)
        if pod:
            self.local[key] = pod
        if before != pod:
            self._attached = None

    def _look_elsewhere(self, events: Sequence[Event]) -> None:
        """Which addresses of the node's blocks pods of other nodes have: in most clusters none, ever. And which are
        nodes': one that was a node's is taken for one from then on, since pods of its network come and go."""
        pods = [event for event in events if isinstance(event, Pod)]
        hosts = host_addresses(pods, self._settings.node)
        if not hosts <= self._hosts:
            self._hosts |= hosts
            self.again.append("addresses of nodes")
        found = abroad(pods, self._settings.node, self.pod_cidrs)
        if not (found or self._abroad):
            return
        before, concerned = self._abroad, set(map(pod_key, events))
        self._abroad = {key: known for key, known in before.items() if key not in concerned} | found
        if self._abroad != before:
            self.again.append("addresses of the node's blocks that other nodes' pods have")

    @property
    def attached(self) -> Attached:
        if self._attached is None:
            settings = self._settings
            found = attach(
                self.host,
                self.local.values(),
                settings.interfaces,
                self._hints,
                self.pod_cidrs,
                settings.host_interfaces,
            )
            others = self.leaving.followed_by_others(self.host, self.local.values(), found, self.heard.synced)
            kept_out = dict.fromkeys(self.quarantine.pods, "it is in quarantine") if self.quarantine.kept else {}
            self._attached = without(found, kept_out | others) if kept_out or others else found
        return self._attached

    @property
    def present(self) -> list[Pod]:
        """The `local` ones without those that are being deleted and whose interface is gone: their addresses are
        nobody's, or another pod's already."""
        assert self.attached
        return self.leaving.present(self.host, self.local)

    @property
    def unattached(self) -> list[Address]:
        """The addresses of the pods that no interface is known for."""
        return [address for key in self.attached.unattached for address in self.local[key].addresses]

    @property
    def pod_cidrs(self) -> tuple[Prefix, ...]:
        """As the options say, else the Node object; a whole family is no block of one node's pods."""
        node = self.heard.node
        told = node.node.pod_cidrs if node else ()
        return self._settings.pod_cidrs or tuple(block for block in told if block.length)

    def look_for_opening(self) -> None:
        """Whether somebody opens or closes the node by file or annotation."""
        node = self.heard.node
        opened = opened_by(self._settings.state_dir, node.annotations if node else {})
        if opened != self.opened:
            self.opened = opened
            self.again.append(f"the node is opened by {opened}" if opened else "the node is closed again")

    def view(self, closed: frozenset[Address]) -> NodeView:
        """The node as its rules are to be laid out for; `closed` addresses let nothing pass for the moment."""
        settings, attached = self._settings, self.attached
        return NodeView(
            settings.node,
            attached.veths,
            self.pod_cidrs,
            attached.uplinks,
            settings.node_egress,
            settings.deny,
            settings.log_group,
            settings.mark,
            bridges=attached.bridges,
            strangers=attached.strangers,
            mode="off" if self.opened else settings.mode,
            unknown=settings.unknown,
            closed=closed,
            abroad=frozenset().union(*self._abroad.values()),
            hosts=self._hosts,
        )


def without(found: Attached, pods: Mapping[str, str]) -> Attached:
    """As though nobody knew which interfaces lead to `pods`, only that each leads to some pod: closed. With the reason
    for each."""
    veths = {key: name for key, name in found.veths.items() if key not in pods}
    strangers = {*found.strangers, *(name for key, name in found.veths.items() if key in pods)} - {*veths.values()}
    why = {key: pods[key] for key in sorted(found.veths.keys() & pods.keys())}
    return replace(found, veths=veths, strangers=tuple(sorted(strangers)), unattached={**found.unattached, **why})


def _what(event: Event) -> str:
    if isinstance(event, Deleted):
        return f"{event.kind} {_name(event.namespace, event.name)} is gone"
    return f"{type(event).__name__} {_name(getattr(event, 'namespace', ''), event.name)}"


def _name(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name
