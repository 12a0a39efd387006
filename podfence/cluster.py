"""Objects from an API server, and only those that can matter to the ends that are asked about.

Lists come as bytes, in pages, through the connection that the agent has (`enforcer.cluster.api`), and are decoded by
`policy.decode`. What can't be read is said, and no verdict is sure then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from podfence.scope import EVERYTHING, Scope, scope_of
from policy.cidr import Address, parse_address
from policy.decode import decode_document
from policy.documents import Document
from policy.errors import ApiError, ApiRefused, ApiUnconfigured, ApiUnreachable, UnknownVerdict
from policy.gather import Item, gather
from policy.labels import cut
from policy.model import Cluster, Pod, Service

# The body of an answer: to what it is called, at a path with a query. ApiError where there is none.
Fetch = Callable[[str, str, list[tuple[str, str]]], bytes]
T = TypeVar("T")
PAGE = 500
_EXPIRED = 410
# By kind: the version, and where its list is; of a namespace with `namespaces/NAME/` in the gap.
_LISTS = {
    "Namespace": ("v1", "/api/v1/namespaces"),
    "Node": ("v1", "/api/v1/nodes"),
    "Pod": ("v1", "/api/v1/{}pods"),
    "NetworkPolicy": ("networking.k8s.io/v1", "/apis/networking.k8s.io/v1/{}networkpolicies"),
    "Service": ("v1", "/api/v1/{}services"),
    "EndpointSlice": ("discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1/{}endpointslices"),
}
_NAMESPACED = ("Pod", "NetworkPolicy", "Service", "EndpointSlice")


class Listed(Struct, frozen=True):
    """What messages call a list, and where it is."""

    what: str
    kind: str
    version: str
    path: str


def listed(kind: str, space: str = "") -> Listed:
    """All objects of a kind, or those of a namespace."""
    version, path = _LISTS[kind]
    path = path.format(f"namespaces/{quote(space, safe='')}/" if space else "")
    name = path.rpartition("/")[2]
    return Listed(f"{name} of {space}" if space else name, kind, version, path)


class Read(Struct, frozen=True):
    """What was read. `unseen` is what could not be; `policies` are those of `cluster` as the API server sent them, for
    who looks for more in them than they mean."""

    cluster: Cluster
    unseen: tuple[str, ...] = ()
    policies: tuple[Raw, ...] = ()


class _Meta(Struct):
    # "continue" is a word of Python's.
    more: str = msgspec.field(default="", name="continue")


class _List(Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    items: list[Raw] = msgspec.field(default_factory=list)


_LIST = msgspec.json.Decoder(_List)


def read_cluster(context: str | None, kubeconfig: str | None, names: Sequence[str], namespace: str) -> Read:
    """The objects that can matter to ends of these names (to all, where there are none). UnknownVerdict where there is
    no cluster to ask."""
    from enforcer.cluster.api_config import connect

    try:
        api = connect(kubeconfig, context)
    except ApiUnconfigured as error:
        raise UnknownVerdict(f"no -f, and no cluster: {error}") from None
    try:
        return collect(lambda what, path, query: api.get(what, path, query, "list"), names, namespace)
    finally:
        api.close()


def collect(fetch: Fetch, names: Sequence[str], namespace: str) -> Read:
    scope = scope_of(names, namespace) if names else EVERYTHING
    items: list[Item] = []
    unseen: list[str] = []
    policies: list[Raw] = []

    def read(where: Listed, **query: str) -> list[Item]:
        # Others' bytes are let go once they are decoded: all pods are a lot.
        keeps = where.kind == "NetworkPolicy"
        try:
            found = items_of(fetch, where, query, lambda raw: (decoded(where, raw), raw if keeps else None))
        except ApiError as error:
            unseen.append(str(error))
            return []
        policies.extend(raw for _, raw in found if raw is not None)
        return [item for item, _ in found]

    spaces = dict.fromkeys(scope.namespaces)
    if scope.everywhere:
        items += read(listed("Pod"))
    for address in scope.addresses:
        # An address may be a pod's of any namespace; the server looks for it.
        pod = replace(listed("Pod"), what=f"the pod with the address {address}")
        items += read(pod, fieldSelector=f"status.podIP={address}")
    if scope.addresses:
        # Or it is a Service's, whose pods are in its namespace.
        services = read(listed("Service"))
        wanted = {parse_address(address) for address in scope.addresses}
        spaces.update((each.namespace, None) for each in _services(services) if wanted & _addresses(each))
        items += services
    spaces.update((item.object.namespace, None) for item in items if isinstance(item.object, Pod))
    items += read(listed("Namespace"))
    items += read(listed("Node"))
    known = {item.name for item in items if item.kind == "Namespace"}
    # A word that is no namespace here is a kind: `deploy/web`.
    for where in _rest(scope, [space for space in spaces if not known or space in known]):
        items += read(where)
    if not items and unseen:
        raise UnknownVerdict(f"nothing could be read: {unseen[0]}")
    return Read(gather(_once(items)).cluster, tuple(unseen), tuple(policies))


def _rest(scope: Scope, spaces: Sequence[str]) -> Iterator[Listed]:
    """What is still to be read: the lists of `spaces`, or where any pod may matter one of each kind, since a list a
    namespace would be hundreds."""
    for space in [""] if scope.everywhere else spaces:
        for kind in _NAMESPACED:
            if (kind == "Pod" and scope.everywhere) or (kind == "Service" and scope.addresses):
                continue
            yield listed(kind, space)


def _services(items: list[Item]) -> list[Service]:
    return [item.object for item in items if isinstance(item.object, Service)]


def _addresses(service: Service) -> set[Address]:
    return {*service.cluster_ips, *service.entry_addresses}


def _once(items: list[Item]) -> list[Item]:
    """A pod that was found by its address is in its namespace's list as well."""
    return list({(item.kind, item.name): item for item in items}.values())


def decoded(where: Listed, raw: Raw) -> Item:
    return decode_document(Document(where.kind, where.version, raw))


def items_of(fetch: Fetch, where: Listed, query: Mapping[str, str], read: Callable[[Raw], T]) -> list[T]:
    """The items of a list as `read` makes them, which it does while the next page is on its way. A list whose pages
    expire meanwhile is read anew, whole."""

    def ask(**more: str) -> Future[bytes]:
        return _begun(lambda: fetch(where.what, where.path, list({**more, **query}.items())))

    found: list[T] = []
    coming, more = ask(limit=str(PAGE)), ""
    while True:
        try:
            body = coming.result()
        except ApiRefused as error:
            if error.status != _EXPIRED or not more:
                raise
            found, coming, more = [], ask(), ""
            continue
        try:
            page = _LIST.decode(body)
        except msgspec.DecodeError as error:
            raise ApiUnreachable("list", where.what, f"not a list: {cut(str(error), 200)}") from None
        more = page.metadata.more
        if more:
            coming = ask(limit=str(PAGE), **{"continue": more})
        found += map(read, page.items)
        if not more:
            return found


def _begun(ask: Callable[[], T]) -> Future[T]:
    """`ask`, in a thread that nobody waits for where the process ends before."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
