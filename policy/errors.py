"""The error tree, and the findings that validation reports. One screen; a message names place, object and field."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from policy.source import Path, Source, path_text


class PodfenceError(Exception):
    """Every error podfence raises on purpose; `exit_code` is what a command ends with."""

    exit_code = 1


class UsageError(PodfenceError):
    """The command was asked something that it cannot mean: an unknown end, two readings of a name."""

    exit_code = 2


class UnknownVerdict(PodfenceError):
    """The answer cannot be known from what could be read."""

    exit_code = 3


class UnreadableInput(PodfenceError):
    """Bytes that are not the YAML or JSON that they should be: `file:line: reason`. Nothing of them is used."""

    exit_code = 4

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}" if line else f"{file}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class UnreadableFiles(PodfenceError):
    """Several files that cannot be read, one a line."""

    exit_code = 4

    def __init__(self, errors: Sequence[UnreadableInput]) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = tuple(errors)


class HostRefused(PodfenceError):
    """The host cannot do this: a missing tool, permission or kernel feature. Says which, and what to do."""

    exit_code = 5


class KernelRejected(HostRefused):
    """A restore or a set change failed. What was enforced stays; the message shows the offending line. `element` is the
    one that a set did not take for what it is, where the kernel said so; else ""."""

    def __init__(self, message: str, element: str = "") -> None:
        super().__init__(message)
        self.element = element


class ApiError(PodfenceError):
    """The API server was not heard as it should be; what was known before stays."""

    exit_code = 5


class ApiUnconfigured(ApiError):
    """Neither a kubeconfig nor a pod's service account says where the API server is, or what they say can't be used."""


class ApiUnreachable(ApiError):
    """No whole answer: no connection, a broken one, one that fell `silent`, or bytes that make no sense."""

    def __init__(self, verb: str, what: str, reason: str, silent: bool = False) -> None:
        super().__init__(f"{verb} {what}: {reason}")
        self.silent = silent
        self.verb = verb
        self.what = what
        self.reason = reason


class ApiRefused(ApiError):
    """The API server answered, and said no: `list pods: 403 Forbidden: …`. `retry_after` is in seconds, 0 where it asks
    for none; `cause` is the first of the machine-readable causes that it names."""

    def __init__(
        self, verb: str, what: str, status: int, reason: str, message: str = "", retry_after: float = 0, cause: str = ""
    ) -> None:
        told = f": {message}" if message else ""
        super().__init__(f"{verb} {what}: {status} {reason}{told}")
        self.verb = verb
        self.what = what
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.cause = cause


class Problem(Struct, frozen=True, order=True):
    """One thing wrong with one object. `field` is a path in the API's own words, `reason` says what is wrong and
    what is expected. `line` is 0 where the object did not come from a file."""

    file: str
    line: int
    kind: str
    name: str
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        field = f"{self.field}: " if self.field else ""
        return f"{place}{self.kind} {self.name}: {field}{self.reason}"


def problem(source: Source | None, kind: str, name: str, path: Path, reason: str) -> Problem:
    """A finding about the field at `path` of the object that came from `source`."""
    file, line = (source.file, source.line_of(path)) if source else ("", 0)
    return Problem(file, line, kind, name, path_text(path), reason)
