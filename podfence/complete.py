"""What can stand at the cursor: click's completion, with the names that the files given on the same line hold.

It runs at every press of Tab, so whatever goes wrong is silence. A name that a shell could take for anything but a name
is not offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, split_arg_string

if TYPE_CHECKING:
    from policy.model import Cluster

VARIABLE = "_PODFENCE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_:-]*")
_FILES = frozenset({"paths", "more", "kubeconfig", "old", "new", "cases", "flows"})


def _ends(cluster: Cluster) -> Iterable[str]:
    for pod in cluster.pods:
        yield pod.key if not pod.stands_in else f"{pod.namespace}/{pod.workload}"
        if pod.workload:
            yield f"{pod.namespace}/{pod.workload}"
    yield from (f"node/{node.name}" for node in cluster.nodes)
    yield from (f"{service.namespace}/svc/{service.name}" for service in cluster.services)
    yield "internet"


def _policies(cluster: Cluster) -> Iterable[str]:
    return (f"{policy.namespace}/netpol/{policy.name}" for policy in cluster.policies)


def _nodes(cluster: Cluster) -> Iterable[str]:
    return [*(node.name for node in cluster.nodes), *(pod.node for pod in cluster.pods)]


def _namespaces(cluster: Cluster) -> Iterable[str]:
    return (namespace.name for namespace in cluster.namespaces)


_NAMES: dict[str, Callable[[Cluster], Iterable[str]]] = {
    "src": _ends,
    "dst": _ends,
    "start": _ends,
    "gone": _policies,
    "node": _nodes,
    "node_name": _nodes,
    "namespace": _namespaces,
}


class _Names(click.types.StringParamType):
    def __init__(self, of: Callable[[Cluster], Iterable[str]]) -> None:
        self._of = of

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names(ctx, self._of) if name.startswith(incomplete)]


def names(ctx: click.Context, of: Callable[[Cluster], Iterable[str]]) -> list[str]:
    """From the files before the cursor, and behind it where the shell says what is there."""
    try:
        from podfence.load import load

        given = [*(ctx.params.get("paths") or ()), *_given(split_arg_string(os.environ.get("COMP_WORDS", "")))]
        paths = [path for path in dict.fromkeys(given) if path != "-"]
        found = of(load(paths, recursive=bool(ctx.params.get("recursive"))).cluster) if paths else ()
        return sorted({name for name in found if _PLAIN.fullmatch(name)})
    except Exception:
        return []


def _given(words: Sequence[str]) -> list[str]:
    return [word for option, word in pairwise(words) if option in ("-f", "--filename") and Path(word).exists()]


def with_names(command: click.Command) -> click.Command:
    """Tells the parameters of `command` what their values are, for completion only."""
    for param in command.params:
        if param.name in _FILES:
            param.type = click.Path()
        elif param.name in _NAMES and isinstance(param.type, click.types.StringParamType):
            param.type = _Names(_NAMES[param.name])
    for each in getattr(command, "commands", {}).values():
        with_names(each)
    return command
