"""What processes know of each other's labs: one folder a lab, whose making claims the name, and a file in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from lab.topology import Attach, Listen
from policy.errors import UsageError
from policy.model import Cluster

FOLDER = Path("/run/podfence-lab")

_FILE = "state.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class State(Struct, frozen=True):
    """`cluster` has what the namespaces are made of: no policies, services or sources."""

    cluster: Cluster
    listen: tuple[Listen, ...]
    attach: Attach = "routed"


class NeverBuilt(UsageError):
    """The name is claimed, but its claimer was killed before it made anything."""


def folder(name: str) -> Path:
    return FOLDER / name


def claim(name: str) -> None:
    """Makes the lab's folder. UsageError where the name is taken, or is none."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"not a name for a lab: {name!r} (lower case letters, digits and dashes, 31 at most)")
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    try:
        folder(name).mkdir(mode=0o700)
    except FileExistsError:
        raise UsageError(f"there is a lab {name} already: `podfence lab down {name}` takes it away") from None


def release(name: str) -> None:
    shutil.rmtree(folder(name), ignore_errors=True)


def names() -> list[str]:
    """Of all labs that are up, or were killed."""
    return sorted(path.name for path in FOLDER.iterdir()) if FOLDER.is_dir() else []


def save(name: str, cluster: Cluster, listen: Sequence[Listen], attach: Attach) -> None:
    bare = Cluster(
        namespaces=[replace(namespace, source=None) for namespace in cluster.namespaces],
        pods=[replace(pod, source=None) for pod in cluster.pods],
        policies=[],
        services=[],
        slices=[],
        nodes=[replace(node, source=None) for node in cluster.nodes],
    )
    path = folder(name) / _FILE
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(State(bare, tuple(listen), attach)))
    fresh.rename(path)


def load(name: str) -> State:
    """UsageError where there is no such lab."""
    if name not in names():
        raise UsageError(f"there is no lab {name}" + (f" (there are: {', '.join(names())})" if names() else ""))
    try:
        return msgspec.json.decode((folder(name) / _FILE).read_bytes(), type=State)
    except FileNotFoundError:
        raise NeverBuilt(f"the lab {name} was never built: `podfence lab down {name}` takes it away") from None
