"""A restore program that stays open: transaction after transaction goes in, and an echo says that one is done.

    us ── text, COMMIT, "# podfence 7" ──►  iptables-restore --noflush --verbose  ──► the kernel, at COMMIT
       ◄── "# podfence 7" ────────────────

A restore commits at COMMIT and not at its end, reads the table anew for each, takes the xtables lock from `*filter` to
COMMIT, and with --verbose repeats comments when it comes to them. It ends where it is refused, so an echo is success.
When its input ends, as when we are killed, what has no COMMIT yet never happens.

Why it stays open (docs/adr/0011): starting one costs more than a change does; and on nft the kernel makes whoever
deleted rules wait for the memory of them when the program's socket closes, 8 to 16 ms, but not while it stays open.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from policy.errors import HostRefused

ECHO = "# podfence "
# A program that does not repeat a comment by then never will: an old one. What is lost is time, once.
HELLO_WAIT = 5.0
# So that whatever a program gathers in its memory is given back.
MOST_TRANSACTIONS = 10_000
_SILENT = "it did not answer in time"


class Answer(Struct, frozen=True):
    """`code` 0: done. Else how the program ended (below 0: by that signal), and what it said. `before` is how many
    lines it had read when the transaction began, for it counts on."""

    code: int
    said: str = ""
    before: int = 0


class Restorer:
    """One program, which is started when it is needed. Between `begin` and `finish` a transaction is under way."""

    def __init__(self, argv: Sequence[str], patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._argv = (*argv, "--verbose")
        self._patience = patience
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._talks = True
        self._number = self._lines = self._before = 0
        self._unsent = memoryview(b"")
        self._heard = b""
        self._due = 0.0
        self._under_way = False
        self._answer = Answer(-1, "nothing was begun")

    @property
    def process_id(self) -> int:
        """0 where none is running."""
        return self._process.pid if self._process else 0

    def talks(self) -> bool:
        """Whether there is a program that is ready, and repeats comments. One that doesn't is of no use here."""
        if self._process and (self._process.poll() is not None or self._number >= MOST_TRANSACTIONS):
            self.close()
        if self._process is None and self._talks:
            self._start()
            self._say("", HELLO_WAIT)
            hello = self.finish()
            # One that somebody killed says nothing of the next one.
            self._talks = hello.code == 0 or (hello.code < -1 and hello.said != _SILENT)
            if hello.code:
                self.close()
        return self._process is not None

    def begin(self, text: str) -> None:
        """Sends one transaction, which ends with COMMIT; only where it `talks`."""
        self._say(text, self._patience)

    def settle(self) -> None:
        """Waits until what is under way is done or has failed."""
        while self._under_way:
            self._exchange(max(self._due - self._clock(), 0.0))

    def finish(self) -> Answer:
        """What became of the transaction that was begun."""
        self.settle()
        return self._answer

    def close(self) -> None:
        """Ends the program; what it has not read a COMMIT for does not happen."""
        process, self._process, self._under_way = self._process, None, False
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        try:
            self._process = subprocess.Popen(
                self._argv, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except FileNotFoundError:
            raise HostRefused(f"{self._argv[0]} is not installed") from None
        self._number = self._lines = 0
        for descriptor in self._descriptors():
            os.set_blocking(descriptor, False)

    def _descriptors(self) -> tuple[int, int]:
        assert self._process and self._process.stdin and self._process.stdout
        return self._process.stdin.fileno(), self._process.stdout.fileno()

    def _say(self, text: str, patience: float) -> None:
        self._number += 1
        whole = f"{text}{ECHO}{self._number}\n"
        self._before = self._lines
        self._lines += whole.count("\n")
        self._unsent, self._heard, self._under_way = memoryview(whole.encode()), b"", True
        self._due = self._clock() + patience
        self._send()

    def _send(self) -> None:
        """As much as the pipe takes."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._descriptors()[0], self._unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = memoryview(b"")  # it says why on its way out

    def _exchange(self, seconds: float) -> None:
        """One round: sends what is left, hears what there is, and waits no longer than that for either."""
        assert self._process
        stdin, stdout = self._descriptors()
        waiting = select.poll()
        waiting.register(stdout, select.POLLIN)
        if self._unsent:
            waiting.register(stdin, select.POLLOUT)
        if not waiting.poll(seconds * 1000):
            self._process.kill()
            self._ended(_SILENT)
            return
        self._send()
        try:
            heard = os.read(stdout, 1 << 16)
        except BlockingIOError:
            return
        self._heard += heard
        if not heard:
            self._ended(self._heard.decode(errors="replace"))
        elif f"{ECHO}{self._number}\n".encode() in self._heard:
            self._answer, self._under_way = Answer(0), False

    def _ended(self, said: str) -> None:
        assert self._process
        code = self._process.wait()
        # One that ends without an echo has failed, whatever it says.
        self._answer, self._under_way = Answer(code or -1, said, self._before), False
        self.close()
