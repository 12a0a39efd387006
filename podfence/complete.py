"""What can stand at the cursor: click's completion, with the names that the files given on the same line hold, or where
there are none those of the cluster that the line means.

It runs at every press of Tab, so whatever goes wrong is silence. A name that a shell could take for anything but a name
is not offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, split_arg_string
from msgspec import Struct

from podfence import complete_cluster as cluster_lists

if TYPE_CHECKING:
    from policy.model import Cluster

VARIABLE = "_PODFENCE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
_PART = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_PLAIN = re.compile(rf"{_PART}(/{_PART})*/?")
_LONGEST = 400  # a namespace, a kind and a name are shorter
_FILES = frozenset({"paths", "more", "kubeconfig", "old", "new", "cases", "flows"})


class Sort(Struct, frozen=True):
    """What a parameter's value names: `of` says how, in a cluster and with the namespace of names that have none;
    `lists` what has to be read of a cluster for a word. `stems`: what words may begin with, beside namespaces; None
    where no word has a namespace."""

    of: Callable[[Cluster, str], Iterable[str]]
    lists: Callable[[str, str], Iterable[cluster_lists.Wanted]]
    stems: tuple[str, ...] | None = None


def _ends(cluster: Cluster, namespace: str) -> Iterator[str]:
    for pod in cluster.pods:
        if not pod.stands_in:
            yield from _both(pod.namespace, pod.name, namespace)
        if pod.workload:
            yield from _both(pod.namespace, pod.workload, namespace)
    yield from (f"node/{node.name}" for node in cluster.nodes)
    for service in cluster.services:
        yield from _both(service.namespace, f"svc/{service.name}", namespace)
    yield "internet"


def _both(own: str, name: str, namespace: str) -> Iterator[str]:
    """In full, and as it may be called where its namespace is the line's."""
    yield f"{own}/{name}"
    if own == namespace:
        yield name


def _policies(cluster: Cluster, _: str) -> Iterable[str]:
    return (f"{policy.namespace}/netpol/{policy.name}" for policy in cluster.policies)


def _nodes(cluster: Cluster, _: str) -> Iterable[str]:
    return [*(node.name for node in cluster.nodes), *(pod.node for pod in cluster.pods)]


def _namespaces(cluster: Cluster, _: str) -> Iterable[str]:
    return (namespace.name for namespace in cluster.namespaces)


_ENDS = Sort(_ends, cluster_lists.lists_for_ends, ("node/",))
_POLICIES = Sort(_policies, cluster_lists.lists_for_policies, ())
_NODES = Sort(_nodes, cluster_lists.lists_for_nodes)
_NAMESPACES = Sort(_namespaces, cluster_lists.lists_for_namespaces)
_SORTS = {
    **dict.fromkeys(("src", "dst", "start"), _ENDS),
    "gone": _POLICIES,
    **dict.fromkeys(("node", "node_name"), _NODES),
    **dict.fromkeys(("namespace", "agents_namespace"), _NAMESPACES),
}


class _Names(click.types.StringParamType):
    def __init__(self, sort: Sort) -> None:
        self._sort = sort

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in names(ctx, self._sort, incomplete)]


def names(ctx: click.Context, sort: Sort, word: str) -> list[str]:
    """Those that `word` begins: of the files on the line, or of the cluster where the command reads one."""
    with suppress(Exception):
        line = _Line(ctx)
        if paths := line.all("paths"):
            return _plain(_of_files(paths, bool(ctx.params.get("recursive")), sort, line.namespace), word)
        if any(param.name == "context" for param in ctx.command.params):
            return cluster_lists.in_time(lambda: _of_cluster(line, sort, word))
    return []


def _plain(found: Iterable[str], word: str) -> list[str]:
    return sorted({name for name in found if name.startswith(word) and len(name) < _LONGEST and _PLAIN.fullmatch(name)})


def _of_files(paths: Sequence[str], recursive: bool, sort: Sort, namespace: str) -> Iterable[str]:
    from podfence.load import load

    # As they stand on the line: no shell has replaced a ~ yet.
    known = load([str(Path(path).expanduser()) for path in paths if path != "-"], recursive=recursive).cluster
    return sort.of(known, namespace)


def _of_cluster(line: _Line, sort: Sort, word: str) -> list[str]:
    """Where all that could stand there has the same beginning, what is behind it: a shell would take it for the end."""
    kubeconfig = line.last("kubeconfig")
    lister = cluster_lists.Lister(line.last("context"), str(Path(kubeconfig).expanduser()) if kubeconfig else None)
    while True:
        known = lister.read(sort.lists(word, line.namespace))
        found = [*sort.of(known, line.namespace)]
        if sort.stems is not None and "/" not in word:
            found += [*(f"{each.name}/" for each in known.namespaces), *sort.stems]
        plain = _plain(found, word)
        if len(plain) != 1 or not plain[0].endswith("/") or plain[0] == word:
            return plain
        (word,) = plain


class _Line:
    """Values of options: before the cursor, where click has read them, and behind it, where the shell says what is
    there."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx
        self._words = split_arg_string(os.environ.get("COMP_WORDS", ""))

    @property
    def namespace(self) -> str:
        return self.last("namespace") or "default"

    def last(self, name: str) -> str | None:
        return next(reversed(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        value = self._ctx.params.get(name) or ()
        given = [value] if isinstance(value, str) else list(value)
        options = [word for param in self._ctx.command.params if param.name == name for word in param.opts]
        return list(dict.fromkeys([*given, *_values(self._words, options)]))


def _values(words: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """`-f x` and `--filename=x`; one that is being typed is none yet."""
    for word, value in pairwise([*words, ""]):
        option, equals, rest = word.partition("=")
        if equals and option in options:
            yield rest
        elif word in options and value and (option not in ("-f", "--filename") or Path(value).expanduser().exists()):
            yield value


def with_names(command: click.Command) -> click.Command:
    """Tells the parameters of `command` what their values are, for completion only."""
    for param in command.params:
        if param.name in _FILES:
            param.type = click.Path()
        elif param.name in _SORTS and isinstance(param.type, click.types.StringParamType):
            param.type = _Names(_SORTS[param.name])
    for each in getattr(command, "commands", {}).values():
        with_names(each)
    return command
