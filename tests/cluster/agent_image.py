"""The agent's image, built once for a state of the sources, and kept beside the Kubernetes binary under their hash."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from manifests.image import build
from tests.cluster.build import cache
from tests.cluster.errors import ClusterFailed

_SOURCES = ("policy", "compiler", "enforcer", "podfence", "lab")
_FILES = ("pyproject.toml", "manifests/image/build.py", "manifests/image/oci.py", "manifests/image/packages.txt")


def tar() -> Path:
    """Built where it is not there yet, which takes a minute or two. What was kept of other sources goes."""
    kept = cache() / f"image-{_hash()}.tar"
    with open(cache() / "image.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            print("podfence: building the agent's image for the cluster tests; a minute or two", file=sys.stderr)
            fresh = kept.with_suffix(f".{os.getpid()}")
            done = subprocess.run(
                [build.TOP / "tools/image", fresh],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode != 0:
                raise ClusterFailed(f"tools/image: exit {done.returncode}\n{done.stdout}{done.stderr}")
            for old in cache().glob("image-*.tar"):
                old.unlink()
            fresh.replace(kept)
    return kept


def _hash() -> str:
    content = hashlib.sha256()
    for path in sorted(_paths()):
        content.update(f"{path.relative_to(build.TOP)}\0".encode() + path.read_bytes())
    return content.hexdigest()[:16]


def _paths() -> Iterator[Path]:
    yield from (build.TOP / name for name in _FILES)
    for folder in _SOURCES:
        yield from (build.TOP / folder).rglob("*.py")
