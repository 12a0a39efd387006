"""The same messages from manifests, for nodes outside Kubernetes: read whole, and read again when a file changes.

Files are looked at each second: their names, sizes and times. What can't be parsed leaves everything as it was; what
can is the whole state of every kind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from enforcer.cluster.heard import KINDS
from enforcer.cluster.news import Finding, Key, Kind, Listed, News, OwnNode, Recovered, Trouble
from policy.errors import PodfenceError, Problem
from policy.model import Cluster, Namespace, NetworkPolicy, Pod

EVERY = 1.0
# A file may change once more within one tick of its file system's clock.
_TICK = 2.0
_Kept = TypeVar("_Kept", Namespace, NetworkPolicy, Pod)
Stamp = frozenset[tuple[str, int, int, int]]


class FileWatcher:
    """Puts what `read` finds in `paths`, at first and whenever one of them has changed. `read` raises PodfenceError
    where something can't be parsed. `now` is the clock of the files' times, `clock` one that is never set."""

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[], tuple[Cluster, Sequence[Problem]]],
        node: str,
        put: Callable[[News], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self._paths = [Path(path) for path in paths]
        self._read = read
        self._node = node
        self._put = put
        self._clock = clock
        self._now = now
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._stamp: Stamp | None = None  # of what was read, and need not be read again
        self._seen: Stamp | None = None  # of late, and since when
        self._seen_at = clock()
        self._known: dict[tuple[type, str, str], Namespace | NetworkPolicy | Pod] = {}
        self._trouble = ""
        self._read_at = clock()

    def run(self) -> None:
        """The thread."""
        while not self._stopped.is_set():
            self.turn()
            self._wait(EVERY)

    def stop(self) -> None:
        self._stopped.set()

    def turn(self) -> None:
        """Reads the files where they have changed since the last turn."""
        stamp = stamp_of(self._paths)
        if stamp == self._stamp:
            return
        if stamp != self._seen:
            self._seen, self._seen_at = stamp, self._clock()
        newest = max((changed for _, _, _, changed in stamp), default=0) / 1e9
        # Where the clock was set back meanwhile, files may be of times to come.
        settled = max(self._now() - newest, self._clock() - self._seen_at) > _TICK
        try:
            cluster, problems = self._read()
        except PodfenceError as error:
            self._say("; ".join(str(error).splitlines()))
        except Exception as error:  # a defect of ours must not end the thread
            self._say(f"{type(error).__name__}: {error}")
        else:
            self._heard(cluster, problems)
        # Written to while it was read, or so lately that a change might not show: read again in the next turn.
        self._stamp = stamp if settled and stamp_of(self._paths) == stamp else None

    def _heard(self, cluster: Cluster, problems: Sequence[Problem]) -> None:
        self._read_at = self._clock()
        before, self._known = self._known, {}
        namespaces = self._same(before, cluster.namespaces)
        policies = self._same(before, cluster.policies)
        pods = self._same(before, cluster.pods)
        nodes = tuple(OwnNode(node) for node in cluster.nodes if node.name == self._node)
        self._put(Listed("Node", nodes, _findings("Node", problems)))
        self._put(Listed("Namespace", namespaces, _findings("Namespace", problems)))
        self._put(Listed("NetworkPolicy", policies, _findings("NetworkPolicy", problems)))
        self._put(Listed("Pod", pods, _findings("Pod", problems)))
        if self._trouble:
            self._trouble = ""
            for kind in KINDS:
                self._put(Recovered(kind))

    def _same(
        self, before: dict[tuple[type, str, str], Namespace | NetworkPolicy | Pod], found: Iterable[_Kept]
    ) -> tuple[_Kept, ...]:
        """`found`, with the object of before for each that is the same and stands where it stood: a place in a file is
        equal to none but itself."""
        kept = []
        for each in found:
            key = (type(each), "" if isinstance(each, Namespace) else each.namespace, each.name)
            old = before.get(key)
            if isinstance(old, type(each)) and str(old.source) == str(each.source):
                each = old if replace(old, source=None) == replace(each, source=None) else each
            self._known[key] = each
            kept.append(each)
        return tuple(kept)

    def _say(self, reason: str) -> None:
        if self._trouble != reason:
            self._trouble = reason
            for kind in KINDS:
                self._put(Trouble(kind, reason, self._read_at))


def stamp_of(paths: Iterable[Path]) -> Stamp:
    """Everything below `paths` by name, inode, size and time of change; what is not there leaves no stamp."""
    found = set()
    for path in paths:
        for each in (path, *(path.rglob("*") if path.is_dir() else ())):
            try:
                status = each.stat()
            except OSError:
                continue
            found.add((str(each), status.st_ino, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)))
    return frozenset(found)


def _findings(kind: Kind, problems: Iterable[Problem]) -> tuple[Finding, ...]:
    """By object; those of workloads are told with the pods that they stand for. All were read as far as they can be."""
    by_key: dict[Key, list[Problem]] = {}
    for each in problems:
        if each.kind == kind or (kind == "Pod" and each.kind not in KINDS):
            space, _, name = each.name.rpartition("/")
            by_key.setdefault(Key(space, name), []).append(each)
    return tuple(Finding(key, tuple(found), kept=False) for key, found in by_key.items())
