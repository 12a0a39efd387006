"""The CNI results of this node, read from their folder and followed. What they mean is `cni_cache`'s business."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from types import TracebackType
from typing import Any

from enforcer.attachment.cni_cache import AddressGone, AddressKnown, CacheEvent, Unreadable, parse

RESULTS = Path("/var/lib/cni/results")
# Where the kernel can't tell of changes, or the folder is not there yet, in seconds.
_POLL = 0.05
_MAX_SIZE = 1 << 20
Look = tuple[int, int, int]  # what tells one state of a file from another: inode, size, time of change in ns


def read(folder: Path = RESULTS) -> list[CacheEvent]:
    """What is there now; nothing where there is no such folder, or none that this process may read."""
    return list(Folder(folder).changes())


class Folder:
    """What was last seen of each file, so that a look tells what is new, however it was found out that there is any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looks: dict[str, Look] = {}
        self._known: dict[str, AddressKnown] = {}
        self._unreadable: set[str] = set()

    def changes(self, written: Set[str] = frozenset()) -> Iterator[CacheEvent]:
        """Since the last call. The files in `written` are read even if they look the same; what says the
        same as before is not told again."""
        looks = self._look()
        for name in sorted(self._looks.keys() - looks.keys()):
            yield from self._gone(name)
        for name, look in sorted(looks.items(), key=lambda item: item[1][2]):
            if look != self._looks.get(name) or name in written:
                yield from self._read(name, look)
        self._looks = looks

    def _look(self) -> dict[str, Look]:
        found = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(status.st_mode):
                        found[entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
        except OSError:
            return {}
        return found

    def _read(self, name: str, look: Look) -> Iterator[CacheEvent]:
        event: CacheEvent | None
        try:
            with (self._path / name).open("rb") as file:
                data = file.read(_MAX_SIZE + 1)
        except FileNotFoundError:
            event = None
        except OSError as error:
            event = Unreadable(name, error.strerror or str(error))
        else:
            too_big = Unreadable(name, f"more than {_MAX_SIZE} bytes")
            event = too_big if len(data) > _MAX_SIZE else parse(name, data, look[2])
        if isinstance(event, AddressKnown):
            if self._known.get(name) == event:
                return
            self._known[name] = event
            self._unreadable.discard(name)
        elif isinstance(event, Unreadable):
            self._unreadable.discard(name)
            yield from self._gone(name)
            self._unreadable.add(name)
        else:
            yield from self._gone(name)
        if event is not None:
            yield event

    def _gone(self, name: str) -> Iterator[AddressGone]:
        if self._known.pop(name, None) or name in self._unreadable:
            self._unreadable.discard(name)
            yield AddressGone(name)


class CniResults:
    """Tells `enqueue` what the results of this node say and when that changes, from a thread that does nothing else.
    What is there already comes before the block is entered. The kernel says when to look (inotify); without it, and
    while there is no folder, it is looked for twenty times a second. Use it as a context manager."""

    def __init__(
        self, enqueue: Callable[[CacheEvent], None], path: Path = RESULTS, watching: bool = True, poll: float = _POLL
    ) -> None:
        self._enqueue = enqueue
        self._path = path
        self._folder = Folder(path)
        self._inotify = _inotify() if watching else None
        self._watched = False
        self._poll = poll
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="cni-results", daemon=True)

    def __enter__(self) -> CniResults:
        self._watch()
        self._tell(frozenset())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._waker, b"\0")
        self._thread.join()
        if self._inotify is not None:
            self._inotify.close()
        os.close(self._wake)
        os.close(self._waker)

    @property
    def told_by_kernel(self) -> bool:
        """Whether changes are told at once, rather than looked for."""
        return self._watched

    @property
    def alive(self) -> bool:
        """Whether changes are still followed."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._ended():
            written = self._written()
            # Whatever is in the folder by now is found by the look that follows.
            self._watch()
            self._tell(written)

    def _ended(self) -> bool:
        """Waits until there is a reason to look, or to end."""
        files = [self._wake, self._inotify.fileno()] if self._watched and self._inotify else [self._wake]
        return self._wake in select.select(files, [], [], None if self._watched else self._poll)[0]

    def _written(self) -> frozenset[str]:
        if self._inotify is None:
            return frozenset()
        from inotify_simple import flags

        names = set()
        for event in self._inotify.read(timeout=0):
            if event.mask & (flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT):
                self._watched = False
            names.add(event.name)
        return frozenset(names)

    def _watch(self) -> None:
        if self._watched or self._inotify is None:
            return
        from inotify_simple import flags

        wanted = flags.CLOSE_WRITE | flags.MOVED_TO | flags.MOVED_FROM | flags.DELETE | flags.DELETE_SELF
        try:
            self._inotify.add_watch(self._path, wanted | flags.MOVE_SELF | flags.ONLYDIR)
        except OSError:
            return  # not there, or no more watches to be had: looked for again
        self._watched = True

    def _tell(self, written: frozenset[str]) -> None:
        for event in self._folder.changes(written):
            self._enqueue(event)


def _inotify() -> Any:
    """None where this kernel, or this user, gets none."""
    try:
        from inotify_simple import INotify

        return INotify()
    except (ImportError, OSError):
        return None
