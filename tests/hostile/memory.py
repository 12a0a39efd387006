"""A memory cgroup for one program: its limit, what it takes, and how often the kernel killed in it. Version 1 or 2."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from policy.errors import HostRefused


class _Files(Struct, frozen=True):
    """What a version calls them. `anonymous` is a line of `stat`, `unlimited` lifts the limit."""

    limit: str
    kills: str
    anonymous: str
    unlimited: str


_V1 = _Files("memory.limit_in_bytes", "memory.oom_control", "rss", "-1")
_V2 = _Files("memory.max", "memory.events", "anon", "max")


class MemoryGroup:
    """Programs that run `under` it are in it from their first instruction."""

    def __init__(self, folder: Path, files: _Files) -> None:
        self._folder = folder
        self._files = files

    @property
    def under(self) -> tuple[str, ...]:
        return "sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._folder / "cgroup.procs")

    def limit(self, megabytes: float | None) -> None:
        """None lifts it."""
        text = self._files.unlimited if megabytes is None else f"{int(megabytes * (1 << 20))}"
        (self._folder / self._files.limit).write_text(text)

    @property
    def megabytes(self) -> float:
        """What can't be given back to the kernel: no file's."""
        return self._count("memory.stat", self._files.anonymous) / (1 << 20)

    @property
    def kills(self) -> int:
        return self._count(self._files.kills, "oom_kill")

    def _count(self, name: str, what: str) -> int:
        lines = map(str.split, (self._folder / name).read_text().splitlines())
        return next(int(value) for field, value in lines if field == what)


@contextmanager
def memory_group(name: str) -> Iterator[MemoryGroup]:
    """HostRefused where the host has no memory cgroups that may be made."""
    parent, files = _parent()
    folder = parent / f"podfence-{name}-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        raise HostRefused(f"no memory cgroup can be made below {parent}: {error.strerror}") from None
    try:
        if files is _V2:
            (folder / "memory.swap.max").write_text("0")
        yield MemoryGroup(folder, files)
    finally:
        _remove(folder)


def _parent() -> tuple[Path, _Files]:
    """Our own group where groups may be made anywhere, the topmost one where only that may have groups below it."""
    own = {line.split(":")[1]: line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(place, own["memory"].lstrip("/")), _V1
        if kind == "cgroup2" and "memory" in Path(place, "cgroup.controllers").read_text().split():
            Path(place, "cgroup.subtree_control").write_text("+memory")
            return Path(place), _V2
    raise HostRefused("this host has no memory cgroups")


def _remove(folder: Path) -> None:
    """The kernel takes a moment to let go of one whose last process was killed."""
    for _ in range(100):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(0.05)
    folder.rmdir()
