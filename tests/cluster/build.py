"""The Kubernetes binary: built from `binary/` by Go, once, and kept outside the tree under the hash of its sources."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.errors import ClusterFailed

SOURCES = Path(__file__).parent / "binary"
_FILES = ("go.mod", "go.sum", "main.go")


def cache() -> Path:
    """The folder, outside the tree, where what takes long to build is kept."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podfence"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def kube() -> Path:
    """The binary, built where it isn't there yet: some minutes. Two that ask at once get one build."""
    binary = cache() / f"kube-{_hash()}"
    if binary.exists():
        return binary
    with open(cache() / "kube.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(binary)
    return binary


def version() -> str:
    """Of Kubernetes, as go.mod asks for it: v1.34.3."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise ClusterFailed(f"{SOURCES / 'go.mod'} requires no k8s.io/kubernetes")
    return found[1]


def _hash() -> str:
    content = hashlib.sha256()
    for name in _FILES:
        content.update((SOURCES / name).read_bytes())
    return content.hexdigest()[:16]


def _build(binary: Path) -> None:
    """Builds beside its place, and moves it there complete."""
    print(f"podfence: building Kubernetes {version()} for the cluster tests, once; some minutes", file=sys.stderr)
    major, minor, _patch = version().removeprefix("v").split(".", 2)
    stamps = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}
    flags = " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={text}" for key, text in stamps.items())])
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        built = Path(folder) / "kube"
        argv = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(built), "."]
        done = subprocess.run(
            argv, cwd=SOURCES, env=os.environ | {"CGO_ENABLED": "0"}, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ClusterFailed(f"go build failed in {SOURCES}:\n{done.stderr[-4000:]}")
        built.replace(binary)


if __name__ == "__main__":
    print(kube())
