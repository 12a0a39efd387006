"""Manifests of a git revision, read from the repository itself: nothing is checked out, and no shell is asked."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from podfence.load import SUFFIXES
from policy.errors import HostRefused, UnreadableInput, UsageError
from policy.labels import bare


def is_revision(text: str) -> bool:
    """Whether `text` is meant as `REVISION:PATH`, which nothing of that name in the file system overrules."""
    return ":" in text and not text.startswith("-") and not Path(text).exists()


def contents(text: str, recursive: bool) -> dict[str, bytes]:
    """The manifests at `REVISION:PATH`, a file or a folder, by name. UsageError where git knows no such thing,
    HostRefused where there is no git."""
    found_object = _git(text, "rev-parse", "--verify", "--end-of-options", text)
    if _git(text, "cat-file", "-t", found_object) == "blob":
        return {bare(text): _output(text, "cat-file", "blob", found_object)}
    # In a folder that the revision does not have, git would archive nothing: with its folder named, it looks at none.
    folder = _git(text, "rev-parse", "--absolute-git-dir")
    archive = _output(text, f"--git-dir={folder}", "archive", "--format=tar", found_object)
    found = _files(text, archive, recursive)
    if not found:
        raise UnreadableInput(bare(text), 0, "holds no object, expected YAML or JSON of the API")
    return found


def _files(text: str, archive: bytes, recursive: bool) -> dict[str, bytes]:
    """Each under the name that git has for it: what a message names can be shown with `git show`."""
    start = text if text.endswith((":", "/")) else f"{text}/"
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            path = PurePosixPath(member.name)
            if path.suffix not in SUFFIXES or (len(path.parts) > 1 and not recursive):
                continue
            name = bare(start + member.name)
            if member.issym() or member.islnk():
                # What it names may have closed something.
                raise UnreadableInput(name, 0, "a link, which can't be followed within a revision")
            file = tar.extractfile(member)
            if file:
                found[name] = file.read()
    return found


def _git(text: str, *arguments: str) -> str:
    return _output(text, *arguments).decode(errors="surrogateescape").strip()


def _output(text: str, *arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise HostRefused("git is not installed, and a revision is to be read") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise UsageError(f"{bare(text)}: {said[-1] if said else 'git knows no such revision or path'}")
    return done.stdout
