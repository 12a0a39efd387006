"""Which pods' policies hold on this node, for those who wait for it: a file for each pod's UID below the state folder.

A container that may not start before (`podfence node wait`) needs no more than to read that folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from policy.errors import HostRefused

FOLDER = "pods"


class Programmed:
    """The folder holds the pods of the last `put`, and no others."""

    def __init__(self, state_dir: str) -> None:
        self._folder = Path(state_dir) / FOLDER
        self._there: set[str] = set()
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            # Whatever an earlier agent said, this one has not seen yet.
            for path in self._folder.iterdir():
                # Pods mount this folder: what cannot be taken out, such as a folder, is none of ours.
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise HostRefused(f"{self._folder}: {error.strerror}") from None

    def __contains__(self, uid: str) -> bool:
        return uid in self._there

    def put(self, uids: Collection[str]) -> set[str]:
        """The UIDs that were not there before. A full disk costs waiting, and nothing else."""
        wanted = {uid for uid in uids if is_uid(uid)}
        new = wanted - self._there
        for uid in self._there - wanted:
            with suppress(OSError):
                (self._folder / uid).unlink(missing_ok=True)
        for uid in [*new]:
            try:
                # A pod that may write here may have put a link in its place, to a file that only root can make.
                os.close(os.open(self._folder / uid, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644))
            except OSError:
                new.discard(uid)
        self._there = (self._there & wanted) | new
        return new


def is_uid(text: str) -> bool:
    """Whether it can be the name of a file, and of nothing else."""
    return 0 < len(text) <= 64 and text.isascii() and text.replace("-", "").isalnum()


def holds(state_dir: str, uid: str) -> bool:
    return is_uid(uid) and (Path(state_dir) / FOLDER / uid).exists()
