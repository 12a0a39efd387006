"""One agent a node: a lock that a second agent waits for while the first one stops, as in a rolling update.

The kernel lets go of the lock when its process ends, however it ends, so nothing stale is ever in the way.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from policy.errors import HostRefused

RETRY = 0.1  # seconds


class SingleAgent:
    """Held from `__enter__` to `__exit__`. HostRefused where another agent does not give way in time."""

    def __init__(
        self,
        state_dir: str,
        handover: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = Path(state_dir) / "agent.lock"
        self._handover = handover
        self._clock = clock
        self._sleep = sleep
        self._file = -1

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostRefused(f"{self._path}: {error.strerror} (--state-dir names another place)") from None
        deadline = self._clock() + self._handover
        while not self._taken():
            if self._clock() >= deadline:
                holder = os.pread(self._file, 20, 0).decode(errors="replace").strip()
                os.close(self._file)
                raise HostRefused(
                    f"another agent (process {holder or 'unknown'}) holds {self._path} and has not given way in "
                    f"{self._handover:g} s: stop it first, or raise --handover"
                )
            self._sleep(RETRY)
        with suppress(OSError):  # a full disk: the number is for a message only
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
