"""Namespaces of the cluster, and programs started into them as children of this process, so that each can be waited
for and ended by its own handle.

A PID namespace is entered by being born into it: the thread says where its next child belongs, starts it, and takes
that back. The other namespaces are entered by nsenter, which then becomes the program.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.errors import ClusterFailed, tail

_CLONE_NEWPID = 0x20000000
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextmanager
def _children_return() -> Iterator[None]:
    """Whatever PID namespace the thread's children are born into meanwhile, afterwards it is its own again."""
    own = os.open("/proc/thread-self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        _checked(_libc.setns(own, _CLONE_NEWPID), "setns")
        os.close(own)


@contextmanager
def first_child() -> Iterator[None]:
    """The next child of this thread is the first process of a new PID namespace."""
    with _children_return():
        _checked(_libc.unshare(_CLONE_NEWPID), "unshare")
        yield


@contextmanager
def children_with(pid: int) -> Iterator[None]:
    """Children of this thread are born into the PID namespace of process `pid`."""
    with _children_return():
        theirs = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(theirs, _CLONE_NEWPID), "setns")
        finally:
            os.close(theirs)
        yield


class Place:
    """The namespaces of one machine of the cluster, known by a process that does nothing but hold them."""

    def __init__(self, name: str, pid: int, logs: Path) -> None:
        self.name = name
        self.pid = pid
        self._logs = logs

    @property
    def netns(self) -> Path:
        """The network namespace, for `nsenter --net=` and setns."""
        return Path(f"/proc/{self.pid}/ns/net")

    @property
    def root(self) -> Path:
        """The file system as this place sees it, for processes of the host."""
        return Path(f"/proc/{self.pid}/root")

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` in the namespaces of this place, its PID namespace excepted."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--uts", "--", *argv]

    def start(self, argv: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """A program that lives as long as the cluster, unless it is ended before. Its output goes to `<log>.log`."""
        with open(self._logs / f"{log}.log", "ab") as output, children_with(self.pid):
            return subprocess.Popen(
                self.command(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(
        self, argv: Sequence[str], stdin: str | bytes = b"", *, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program here to its end. ClusterFailed where it fails, unless `check` is off."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        with children_with(self.pid):
            process = subprocess.Popen(
                self.command(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        return finish(process, argv, data, check=check, timeout=timeout, place=self.name)

    def log(self, name: str) -> str:
        """The end of a program's log."""
        return tail(self._logs / f"{name}.log")


def finish(
    process: subprocess.Popen[bytes], argv: Sequence[str], stdin: bytes, *, check: bool, timeout: float, place: str
) -> subprocess.CompletedProcess[str]:
    """The result of a started program, which is killed where it takes longer."""
    with process:
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except BaseException as error:
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ClusterFailed(f"{place}: {' '.join(argv)}: no end within {timeout} s") from error
            raise
    done = subprocess.CompletedProcess(
        list(argv), process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    )
    if check and done.returncode != 0:
        raise ClusterFailed(f"{place}: {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done
