"""Objects from an API server, and only those that can matter to the ends that are asked about.

Lists come as bytes, in pages, through the connection that the agent has (`enforcer.cluster.api`), and are decoded by
`policy.decode`. What can't be read is said, and no verdict is sure then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

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
PAGE = 500
_EXPIRED = 410
# By kind: the version, and where the list of a namespace is; that of all is there without the namespace.
_NAMESPACED = {
    "Pod": ("v1", "/api/v1/namespaces/{}/pods"),
    "NetworkPolicy": ("networking.k8s.io/v1", "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"),
    "Service": ("v1", "/api/v1/namespaces/{}/services"),
    "EndpointSlice": ("discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"),
}


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

    def read(what: str, kind: str, version: str, path: str, **query: str) -> list[Item]:
        try:
            raws = _pages(fetch, what, path, query)
        except ApiError as error:
            unseen.append(str(error))
            return []
        if kind == "NetworkPolicy":
            policies.extend(raws)
        return [_decoded(kind, version, raw) for raw in raws]

    spaces = dict.fromkeys(scope.namespaces)
    everyone = "/api/v1/pods"
    if scope.everywhere:
        items += read("pods", "Pod", "v1", everyone)
    for address in scope.addresses:
        # An address may be a pod's of any namespace; the server looks for it.
        items += read(
            f"the pod with the address {address}", "Pod", "v1", everyone, fieldSelector=f"status.podIP={address}"
        )
    if scope.addresses:
        # Or it is a Service's, whose pods are in its namespace.
        services = read("services", "Service", "v1", "/api/v1/services")
        wanted = {parse_address(address) for address in scope.addresses}
        spaces.update((each.namespace, None) for each in _services(services) if wanted & _addresses(each))
        items += services
    spaces.update((item.object.namespace, None) for item in items if isinstance(item.object, Pod))
    items += read("namespaces", "Namespace", "v1", "/api/v1/namespaces")
    items += read("nodes", "Node", "v1", "/api/v1/nodes")
    known = {item.name for item in items if item.kind == "Namespace"}
    # A word that is no namespace here is a kind: `deploy/web`.
    for what, kind, version, path in _lists(scope, [space for space in spaces if not known or space in known]):
        items += read(what, kind, version, path)
    if not items and unseen:
        raise UnknownVerdict(f"nothing could be read: {unseen[0]}")
    return Read(gather(_once(items)).cluster, tuple(unseen), tuple(policies))


def _lists(scope: Scope, spaces: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """What is still to be read, each list with its kind, version and path: those of `spaces`, or where any pod may
    matter one of each kind, since a list a namespace would be hundreds."""
    for space in [""] if scope.everywhere else spaces:
        for kind, (version, path) in _NAMESPACED.items():
            if (kind == "Pod" and scope.everywhere) or (kind == "Service" and scope.addresses):
                continue
            name = path.rpartition("/")[2]
            if space:
                yield f"{name} of {space}", kind, version, path.format(quote(space, safe=""))
            else:
                yield name, kind, version, path.replace("/namespaces/{}", "")


def _services(items: list[Item]) -> list[Service]:
    return [item.object for item in items if isinstance(item.object, Service)]


def _addresses(service: Service) -> set[Address]:
    return {*service.cluster_ips, *service.entry_addresses}


def _once(items: list[Item]) -> list[Item]:
    """A pod that was found by its address is in its namespace's list as well."""
    return list({(item.kind, item.name): item for item in items}.values())


def _decoded(kind: str, version: str, raw: Raw) -> Item:
    return decode_document(Document(kind, version, raw))


def _pages(fetch: Fetch, what: str, path: str, query: dict[str, str]) -> list[Raw]:
    """The items of a list. One whose pages expire while they are read is read anew, whole."""
    found: list[Raw] = []
    limit, more = {"limit": str(PAGE)}, ""
    while True:
        asked = {**limit, **query, **({"continue": more} if more else {})}
        try:
            body = fetch(what, path, list(asked.items()))
        except ApiRefused as error:
            if error.status != _EXPIRED or not more:
                raise
            found, limit, more = [], {}, ""
            continue
        try:
            page = _LIST.decode(body)
        except msgspec.DecodeError as error:
            raise ApiUnreachable("list", what, f"not a list: {cut(str(error), 200)}") from None
        found += page.items
        more = page.metadata.more
        if not more:
            return found
