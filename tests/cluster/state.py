"""Where clusters keep their files, which of them live, and what is left of those that don't.

A cluster is a folder, and lives as long as the first process of its PID namespace, which the folder names. When that
process ended, by a killed test run as well, all other processes, interfaces and mounts are gone with it, and what is
left are the folder and empty cgroups: `sweep` removes them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster.errors import ClusterFailed

ROOT = Path(os.environ.get("PODFENCE_CLUSTERS", "/var/tmp/podfence-clusters"))
CGROUPS = Path("/sys/fs/cgroup")
_KEEPER = "keeper.json"
_CGROUP = "podfence-clusters"


def folder(name: str) -> Path:
    return ROOT / name


def cgroup(name: str, node: str) -> str:
    """Below which the containers of a node are, in each hierarchy."""
    return f"/{_CGROUP}/{name}/{node}"


@contextmanager
def claiming() -> Iterator[None]:
    """One at a time looks for leftovers, or claims a name. The folder is root's alone: keys are in it."""
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    if ROOT.stat().st_uid != os.geteuid() or ROOT.stat().st_mode & 0o077:
        raise ClusterFailed(f"{ROOT} can be opened by others; remove it")
    with open(ROOT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def claim(name: str, pid: int) -> Path:
    """A new folder for the cluster that lives as long as process `pid`. ClusterFailed where the name lives."""
    sweep()
    path = folder(name)
    if path.exists():
        raise ClusterFailed(f"the cluster {name} is up already; `make cluster-down` ends one that `make cluster` made")
    path.mkdir(mode=0o700)
    (path / _KEEPER).write_text(json.dumps({"pid": pid, "started": _started(pid)}))
    return path


def keeper(name: str) -> int | None:
    """The process that the cluster lives with; None where there is no such cluster, or where it ended."""
    try:
        kept = json.loads((folder(name) / _KEEPER).read_text())
    except (FileNotFoundError, ValueError):
        return None
    pid = int(kept["pid"])
    return pid if _started(pid) == kept["started"] else None


def sweep() -> None:
    """Removes what ended clusters left. Only while `claiming`."""
    for path in ROOT.iterdir():
        if path.is_dir() and keeper(path.name) is None:
            remove(path.name)


def remove(name: str) -> None:
    """Removes the files and cgroups of a cluster whose processes have ended."""
    for hierarchy in CGROUPS.iterdir() if CGROUPS.is_dir() else ():
        _remove_cgroups(hierarchy / _CGROUP / name)
    _remove_cgroups(CGROUPS / _CGROUP / name)
    shutil.rmtree(folder(name), ignore_errors=True)


def _remove_cgroups(top: Path) -> None:
    """From the leaves up. The kernel takes a moment to let go of a cgroup whose last process was killed."""
    for name, _folders, _files in os.walk(top, topdown=False):
        path = Path(name)
        for _attempt in range(50):
            try:
                path.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)
            else:
                break
    with suppress(OSError):
        top.parent.rmdir()


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: with its number, what tells it from all others since the boot.
    None where it is gone, or is dead and waits for its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
