"""Objects for completion from a cluster: only the lists that the word at the cursor calls for, of their metadata alone,
in two seconds or not at all.

A word without a namespace calls for the names of the line's namespace, and for the namespaces, which lead further:
`shop/`.
"""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from podfence.scope import KINDS
from policy.errors import ApiError
from policy.model import Cluster

SECONDS = 2.0
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# A kind, and the namespace whose objects are meant, "" for all.
Wanted = tuple[str, str]
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def lists_for_ends(word: str, namespace: str) -> Iterator[Wanted]:
    first, slash, rest = word.partition("/")
    kind = KINDS.get(first)
    if not slash:
        yield "Namespace", ""
        yield from _lists_of_kind("", namespace)
    elif kind == "node":
        yield "Node", ""
    elif kind:
        yield from _lists_of_kind(kind, namespace)
    else:
        named, more, _ = rest.partition("/")
        yield from _lists_of_kind(KINDS.get(named, "") if more else "", first)


def _lists_of_kind(kind: str, namespace: str) -> Iterator[Wanted]:
    """Workloads are known by their pods."""
    if kind != "svc":
        yield "Pod", namespace
    if kind in ("", "svc"):
        yield "Service", namespace


def lists_for_policies(word: str, _: str) -> Iterator[Wanted]:
    namespace, slash, _rest = word.partition("/")
    yield ("NetworkPolicy", namespace) if slash else ("Namespace", "")


def lists_for_nodes(_: str, __: str) -> Iterator[Wanted]:
    yield "Node", ""


def lists_for_namespaces(_: str, __: str) -> Iterator[Wanted]:
    yield "Namespace", ""


class Lister:
    """Reads lists through one connection. What the user may not read holds no names."""

    def __init__(self, context: str | None, kubeconfig: str | None) -> None:
        from enforcer.cluster.api_config import connect

        self._api = connect(kubeconfig, context, connect_timeout=SECONDS, read_timeout=SECONDS, answer_timeout=SECONDS)

    def read(self, wanted: Iterable[Wanted]) -> Cluster:
        from podfence.cluster import decoded, items_of, listed
        from policy.gather import gather

        items = []
        for kind, namespace in wanted:
            if namespace and not _NAMESPACE.fullmatch(namespace):
                continue
            where = listed(kind, namespace)
            try:
                items += items_of(self._fetch, where, {}, partial(decoded, where))
            except ApiError:
                continue
        return gather(items).cluster

    def _fetch(self, what: str, path: str, query: list[tuple[str, str]]) -> bytes:
        return self._api.get(what, path, query, "list", _METADATA)


def in_time(ask: Callable[[], list[str]], seconds: float = SECONDS) -> list[str]:
    """What `ask` finds; nothing where it fails or others take longer, and nothing of that is told anywhere."""
    from enforcer.cluster.api_config import prepare

    found: list[str] = []

    def run() -> None:
        with suppress(Exception):
            found.extend(ask())

    logging.disable()
    warnings.simplefilter("ignore")
    prepare()  # which hangs on nobody
    # Not waited for at the end, whatever it hangs on: a name that is not resolved, a plugin that asks for a password.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return [] if thread.is_alive() else found
