"""A small agent: watches, what was heard, and an index kept up with it; and the same made from nothing, to compare."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from compiler.index import Index
from enforcer.cluster.api import Api
from enforcer.cluster.api_config import connect
from enforcer.cluster.heard import Heard
from enforcer.cluster.news import Kind, Listed, News
from enforcer.cluster.pace import Pace
from enforcer.cluster.resources import Resource, resources
from enforcer.cluster.watch_wire import read_page
from enforcer.cluster.watchers import Watchers
from policy.model import DIRECTIONS
from tests.api.history import History
from tests.api.server import Server

NODE = "n1"
ALL = resources(NODE)
# A thousand times as fast as usual.
QUICK = Pace(
    page=3, shortest=20, longest=30, silence=0.4, settled=0.3, least_wait=0.005, first_wait=0.02, most_wait=0.1
)


def kubeconfig(folder: Path, server: Server, user: dict[str, Any] | None = None, **cluster: Any) -> str:
    tree = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url, **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(tree))  # JSON is YAML
    return str(path)


def fresh(history: History) -> Heard:
    """What there is to hear, from nothing."""
    heard = Heard()
    for resource in ALL:
        name = NODE if resource.kind == "Node" else ""
        page = read_page(resource, history.page(resource.path, 0, "", name) or b"")
        heard.take(Listed(resource.kind, tuple(page.objects), tuple(page.findings)))
    return heard


def state(heard: Heard) -> dict[str, dict[tuple[str, str], object]]:
    return {
        resource.kind: {(getattr(found, "namespace", ""), found.name): found for found in heard.objects(resource.kind)}
        for resource in ALL
    }


def meaning(index: Index) -> dict[object, object]:
    """The allow-sets of all pods, and who is a member of what they use."""
    sets = {(key, d): index.allow(pod, d) for key, pod in index.pods.items() for d in DIRECTIONS if pod.selectable}
    return {**sets, "pods": dict(index.pods)}


def compiled(heard: Heard) -> Index:
    index = Index()
    index.apply(heard.everything())
    return index


class Follower:
    """Follows `server` in threads; `settle` waits until it knows what the server has."""

    def __init__(self, server: Server, folder: Path, pace: Pace = QUICK, api: Api | None = None) -> None:
        self.server = server
        self.api = api or connect(kubeconfig(folder, server), connect_timeout=1, read_timeout=1)
        self.inbox: SimpleQueue[News] = SimpleQueue()
        self.news: list[News] = []
        self.heard = Heard()
        self.index = Index()
        self.watchers = Watchers(ALL, self.api, self.inbox.put, pace)

    def __enter__(self) -> Follower:
        self.watchers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watchers.stop()
        self.api.close()

    def drain(self) -> None:
        while True:
            try:
                message = self.inbox.get_nowait()
            except Empty:
                return
            self.news.append(message)
            self.index.apply(self.heard.take(message))

    def until(self, wanted: Callable[[], object], seconds: float = 8) -> None:
        ends = time.monotonic() + seconds
        while True:
            self.drain()
            if wanted():
                return
            assert time.monotonic() < ends, f"{seconds} s passed; {self.heard.troubles}; {self.server.requests}"
            time.sleep(0.005)

    def settle(self, seconds: float = 8) -> None:
        """Knows what the server has; and what was compiled on the way is what would be compiled from nothing."""
        self.until(lambda: self.heard.synced and state(self.heard) == state(fresh(self.server.history)), seconds)
        assert meaning(self.index) == meaning(compiled(fresh(self.server.history)))

    def said(self, kind: Kind, what: type[News]) -> list[Any]:
        return [message for message in self.news if isinstance(message, what) and message.kind == kind]


def resource_of(kind: Kind) -> Resource:
    return next(resource for resource in ALL if resource.kind == kind)
