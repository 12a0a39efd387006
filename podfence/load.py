"""Manifests from files, folders and standard input: the only module that reads files.

Either everything could be parsed, or nothing is used: every unreadable file is named in one error. Wrong objects are
problems, not errors; they are loaded as far as they can be understood, and never wider than they were meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from policy.decode import decode_document
from policy.documents import documents
from policy.errors import Problem, UnreadableFiles, UnreadableInput, UsageError
from policy.gather import Item, gather
from policy.labels import bare
from policy.model import Cluster

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_STDIN = "-"


class Loaded(Struct, frozen=True):
    """`files` are those that were read, in order, each once."""

    cluster: Cluster
    problems: tuple[Problem, ...]
    files: tuple[str, ...]


def load(
    paths: Sequence[str],
    recursive: bool = True,
    stdin: BinaryIO | None = None,
    contents: Mapping[str, bytes] | None = None,
    about: Sequence[str] = (),
) -> Loaded:
    """The objects in `paths`: files, folders (their *.yaml, *.yml and *.json, sorted by name) and `-` for `stdin`; and
    in `contents`, which are files that were read elsewhere, by name. Where only namespaces `about` matter, those of
    others may be left out; see `documents`.

    UsageError for a path that is not there, UnreadableInput or UnreadableFiles for what cannot be parsed, and for a
    path that holds no object at all."""
    files = {path: _files(path, recursive) for path in dict.fromkeys(paths)}
    names: dict[Path, str] = {}
    for found in files.values():
        names.update({file: name for file, name in found.items() if file not in names})
    items: dict[Path, list[Item]] = {}
    unreadable: list[UnreadableInput] = []
    given: list[Item] = []
    for name, data in (contents or {}).items():
        try:
            given += [decode_document(document) for document in documents(data, name, about)]
        except UnreadableInput as error:
            unreadable.append(error)
    for file, name in names.items():
        items[file] = []
        try:
            items[file] = [
                decode_document(document) for document in documents(_content(file, name, stdin), name, about)
            ]
        except UnreadableInput as error:
            unreadable.append(error)
    broken = {error.file for error in unreadable}
    for path, found in files.items():
        if not any(items[file] or names[file] in broken for file in found):
            reason = "holds no object, expected YAML or JSON of the API"
            unreadable.append(UnreadableInput(_name(path), 0, reason))
    if unreadable:
        raise unreadable[0] if len(unreadable) == 1 else UnreadableFiles(unreadable)
    decoded = gather(chain(given, *items.values()))
    return Loaded(decoded.cluster, decoded.problems, (*(contents or ()), *names.values()))


def _name(path: str) -> str:
    return "<stdin>" if path == _STDIN else bare(path)


def _files(path: str, recursive: bool) -> dict[Path, str]:
    """The files at `path`, each by its real path (pipes have none) with the name that messages give it."""
    start = Path(path)
    if path == _STDIN:
        return {start: _name(path)}
    try:
        if not start.exists():
            raise UsageError(f"{_name(path)}: no such file or folder")
        if not start.is_dir():
            return {_real(start): _name(path)}
        entries = sorted(start.rglob("*") if recursive else start.iterdir())
        names: dict[Path, str] = {}
        for entry in (entry for entry in entries if entry.suffix in SUFFIXES):
            if entry.is_file():
                names.setdefault(entry.resolve(), _name(str(entry)))
            elif entry.is_symlink() and not entry.exists():
                # What it should name may have closed something: reading it fails, and says so.
                names[entry.absolute()] = _name(str(entry))
        return names
    except OSError as error:
        raise UnreadableInput(_name(path), 0, f"cannot be read: {error.strerror}") from None


def _real(file: Path) -> Path:
    """What two names of one file share. A link to a pipe, as /dev/stdin may be, can be opened but leads nowhere."""
    try:
        return file.resolve(strict=True)
    except OSError:
        return file.absolute()


def read_file(path: str, stdin: BinaryIO | None) -> bytes:
    """What one file holds, or `stdin` for `-`. UsageError where it is not there, UnreadableInput where it can't be
    read."""
    try:
        return _content(Path(path), _name(path), stdin)
    except UnreadableInput as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UsageError(f"{_name(path)}: no such file") from None
        raise


def _content(file: Path, name: str, stdin: BinaryIO | None) -> bytes:
    if file == Path(_STDIN):
        return stdin.read() if stdin else b""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnreadableInput(name, 0, f"cannot be read: {error.strerror}") from error
