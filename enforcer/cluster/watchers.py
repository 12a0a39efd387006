"""The threads that follow the API server, a kind each. They only put messages into one inbox: what is done about them
is the business of the one thread that empties it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from enforcer.cluster.news import News
from enforcer.cluster.pace import USUAL, Pace
from enforcer.cluster.resources import Resource
from enforcer.cluster.watch import Server, Watcher
from enforcer.steady import steady
from policy import decode


class Watchers:
    """A thread for each of `resources`, all of which put into one inbox."""

    def __init__(
        self,
        resources: tuple[Resource, ...],
        server: Server,
        put: Callable[[News], None],
        pace: Pace = USUAL,
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        decode.ready()
        self.watchers = tuple(Watcher(resource, server, put, pace) for resource in resources)
        self._threads = [
            steady(watcher.run, f"watch-{watcher.resource.kind.lower()}", complain) for watcher in self.watchers
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, within: float = 5) -> None:
        """Waits for the threads to end, but no longer than so many seconds for all of them: they change nothing."""
        for watcher in self.watchers:
            watcher.stop()
        end = time.monotonic() + within
        for thread in self._threads:
            with suppress(RuntimeError):
                thread.join(max(0, end - time.monotonic()))
