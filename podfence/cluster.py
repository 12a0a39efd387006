"""Objects from an API server, and only those that can matter to the ends that are asked about.

The `kubernetes` client finds the server and proves who we are; what it sends is taken as bytes, in pages, and decoded
by `policy.decode`. What can't be read is said, and no verdict is sure then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Raw, Struct

from podfence.scope import EVERYTHING, scope_of
from policy.cidr import Address, parse_address
from policy.decode import decode_document
from policy.documents import Document
from policy.errors import UnknownVerdict
from policy.gather import Item, gather
from policy.labels import bare, cut
from policy.model import Cluster, Pod, Service

# The body of an answer to a path with its query; Refused where there is none.
Fetch = Callable[[str], bytes]
PAGE = 500
_EXPIRED = 410
_NAMESPACED = {
    "Pod": ("v1", "/api/v1/namespaces/{}/pods"),
    "NetworkPolicy": ("networking.k8s.io/v1", "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"),
    "Service": ("v1", "/api/v1/namespaces/{}/services"),
    "EndpointSlice": ("discovery.k8s.io/v1", "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"),
}


class Refused(Exception):
    """Why a list could not be read, in few words; `status` is that of the answer, 0 where there was none."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class _Meta(Struct):
    # "continue" is a word of Python's.
    more: str = msgspec.field(default="", name="continue")


class _List(Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    items: list[Raw] = msgspec.field(default_factory=list)


_LIST = msgspec.json.Decoder(_List)


def read_cluster(
    context: str | None, kubeconfig: str | None, names: Sequence[str], namespace: str
) -> tuple[Cluster, tuple[str, ...]]:
    """The objects that can matter to ends of these names (to all, where there are none), and what could not be read.
    UnknownVerdict where there is no cluster to ask."""
    return collect(connect(context, kubeconfig), names, namespace)


def collect(fetch: Fetch, names: Sequence[str], namespace: str) -> tuple[Cluster, tuple[str, ...]]:
    scope = scope_of(names, namespace) if names else EVERYTHING
    items: list[Item] = []
    unseen: list[str] = []

    def read(what: str, kind: str, version: str, path: str, **query: str) -> list[Item]:
        try:
            return [_decoded(kind, version, raw) for raw in _pages(fetch, path, query)]
        except Refused as error:
            unseen.append(f"{what}: {error}")
            return []

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
    for space in spaces:
        # A word that is no namespace here is a kind: `deploy/web`.
        if known and space not in known:
            continue
        for kind, (version, path) in _NAMESPACED.items():
            if (kind == "Pod" and scope.everywhere) or (kind == "Service" and scope.addresses):
                continue
            items += read(f"{path.rpartition('/')[2]} of {space}", kind, version, path.format(quote(space, safe="")))
    if not items and unseen:
        raise UnknownVerdict(f"nothing could be read: {unseen[0]}")
    return gather(_once(items)).cluster, tuple(unseen)


def _services(items: list[Item]) -> list[Service]:
    return [item.object for item in items if isinstance(item.object, Service)]


def _addresses(service: Service) -> set[Address]:
    return {*service.cluster_ips, *service.entry_addresses}


def _once(items: list[Item]) -> list[Item]:
    """A pod that was found by its address is in its namespace's list as well."""
    return list({(item.kind, item.name): item for item in items}.values())


def _decoded(kind: str, version: str, raw: Raw) -> Item:
    return decode_document(Document(kind, version, raw))


def _pages(fetch: Fetch, path: str, query: dict[str, str]) -> Iterator[Raw]:
    """The items of a list. One whose pages expire while they are read is read anew, whole."""
    found: list[Raw] = []
    limit, more = {"limit": str(PAGE)}, ""
    while True:
        asked = {**limit, **query, **({"continue": more} if more else {})}
        try:
            body = fetch(f"{path}?{urlencode(asked)}")
        except Refused as error:
            if error.status != _EXPIRED or not more:
                raise
            found, limit, more = [], {}, ""
            continue
        try:
            page = _LIST.decode(body)
        except msgspec.DecodeError as error:
            raise Refused(f"no list of the API: {cut(str(error), 200)}") from None
        found += page.items
        more = page.metadata.more
        if not more:
            return iter(found)


def connect(context: str | None, kubeconfig: str | None) -> Fetch:
    """From the kubeconfig, or where there is none and this runs in a pod, with the pod's service account."""
    from kubernetes.client.configuration import Configuration
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.incluster_config import load_incluster_config
    from kubernetes.config.kube_config import load_kube_config

    configuration = Configuration()
    try:
        load_kube_config(kubeconfig, context, client_configuration=configuration, persist_config=False)
    except ConfigException as error:
        if context or kubeconfig:
            raise UnknownVerdict(f"no cluster: {_line(error)}") from None
        try:
            load_incluster_config(client_configuration=configuration)
        except ConfigException:
            reason = "no -f, and no cluster: there is no kubeconfig with a current context, and this is no pod"
            raise UnknownVerdict(reason) from None
    return _fetcher(configuration)


def _fetcher(configuration: Any) -> Fetch:
    from kubernetes.client.rest import RESTClientObject
    from urllib3.exceptions import HTTPError

    rest = RESTClientObject(configuration)
    headers = {"accept": "application/json", "accept-encoding": "gzip", "user-agent": "podfence"}
    for setting in configuration.auth_settings().values():
        if setting["in"] == "header" and setting["value"]:
            headers[setting["key"]] = setting["value"].strip()

    def fetch(target: str) -> bytes:
        try:
            answer = rest.pool_manager.request(
                "GET", f"{configuration.host}{target}", headers=headers, timeout=30.0, retries=1
            )
        except (HTTPError, OSError) as error:
            raise Refused(f"{configuration.host} does not answer: {_line(error)}") from None
        if answer.status != 200:
            raise Refused(f"refused with {answer.status} {bare(cut(answer.reason or '', 100))}", answer.status)
        return bytes(answer.data)

    return fetch


def _line(error: BaseException) -> str:
    return bare(cut(" ".join(str(error).split()), 300))
