"""The filter table in the kernel: read with iptables-save, changed by iptables-restore, one transaction at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from enforcer.kernel.backend import CONFLICT_WAITS, LOCK_WAIT, Backend, checked, feed, overtaken, refusal
from enforcer.kernel.restorer import Answer, Restorer
from enforcer.rules.parse import Installed, parse_tables
from policy.cidr import Family

# Beyond the lock: a program that takes longer than this hangs.
_PATIENCE = 60


def read(backend: Backend, family: Family) -> Installed:
    """What is installed of ours. HostRefused where the table can't be read."""
    return parse_tables(checked([backend.program(family, "save"), "-c", "-t", "filter"]))


class Tables:
    """The filter tables of one backend, each changed through a restore program that stays open. One thread only.

    The families of nft are changed side by side. Those of legacy share the xtables lock, which older programs ask for
    once a second only, so one begins when the other is done."""

    def __init__(
        self, backend: Backend, sleep: Callable[[float], None] = time.sleep, lock_wait: int = LOCK_WAIT
    ) -> None:
        self._backend = backend
        self._sleep = sleep
        self._argv = {f: [backend.program(f, "restore"), "--noflush", "--wait", str(lock_wait)] for f in (4, 6)}
        self._restorers = {family: Restorer(argv, lock_wait + _PATIENCE) for family, argv in self._argv.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for restorer in self._restorers.values():
            restorer.close()

    def begin(self, family: Family, text: str) -> Callable[[], None]:
        """Sends one transaction, atomic for packets; what comes back waits until it is done. KernelRejected where the
        kernel refuses: then nothing has changed. Where the program ended before it said so, that is not known."""
        restorer = self._restorers[family]
        what = f"filter table, IPv{family}"
        if not restorer.talks():
            feed(self._argv[family], text, what, self._sleep)
            return lambda: None
        if self._backend.mode == "legacy":
            for other in self._restorers.values():
                other.settle()
        restorer.begin(text)

        def finish() -> None:
            answer = self._again(restorer, text, restorer.finish())
            if answer.code:
                raise refusal(what, self._argv[family][0], answer.said, text, answer.before)

        return finish

    def restore(self, family: Family, text: str) -> None:
        self.begin(family, text)()

    def _again(self, restorer: Restorer, text: str, answer: Answer) -> Answer:
        """Tried again where another writer was faster."""
        for wait in CONFLICT_WAITS:
            if not answer.code or not overtaken(answer.said, text, answer.before) or not restorer.talks():
                break
            self._sleep(wait)
            restorer.begin(text)
            answer = restorer.finish()
        return answer
