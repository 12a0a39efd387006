"""The kinds that the agent follows: where the API server has them, and how one object is read.

An object that can't be read whole is never dropped silently, and never widens access: a NetworkPolicy isolates as far
as its namespace and selector can be read (semantics, row 34); a Pod or Namespace stays what it was.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from enforcer.cluster.news import Changed, Finding, Gone, Key, Kind, Object, OwnNode
from policy.decode import decode_document
from policy.decode_plain import plain_pod
from policy.documents import Document
from policy.errors import PodfenceError, Problem
from policy.gather import Item
from policy.model import DIRECTIONS, Namespace, NetworkPolicy, Node, Pod
from policy.selector import EVERYTHING


class Resource(Struct, frozen=True):
    """`plural` is what messages and permissions call it; `query` goes with every list and watch of it."""

    kind: Kind
    api_version: str
    plural: str
    path: str
    query: tuple[tuple[str, str], ...] = ()


PODS = Resource("Pod", "v1", "pods", "/api/v1/pods")
NAMESPACES = Resource("Namespace", "v1", "namespaces", "/api/v1/namespaces")
POLICIES = Resource(
    "NetworkPolicy",
    "networking.k8s.io/v1",
    "networkpolicies.networking.k8s.io",
    "/apis/networking.k8s.io/v1/networkpolicies",
)


def own_node(name: str) -> Resource:
    """The one Node of that name."""
    return Resource("Node", "v1", "nodes", "/api/v1/nodes", (("fieldSelector", f"metadata.name={name}"),))


def resources(node: str) -> tuple[Resource, ...]:
    """All that an agent on `node` follows: the small ones first."""
    return (own_node(node), NAMESPACES, POLICIES, PODS)


class _Identity(Struct, gc=False):
    name: str
    namespace: str = ""
    uid: str = ""


class _Named(Struct, gc=False):
    metadata: _Identity


class _Taint(Struct):
    key: str = ""
    effect: str = ""


class _NodeMeta(Struct):
    uid: str = ""
    annotations: dict[str, str] | None = None


class _NodeSpec(Struct):
    taints: list[_Taint] | None = None


class _NodeDetails(Struct):
    metadata: _NodeMeta
    spec: _NodeSpec | None = None


_NAMED = msgspec.json.Decoder(_Named)
_NODE_DETAILS = msgspec.json.Decoder(_NodeDetails)
_UNREADABLE = (PodfenceError, msgspec.DecodeError, ValueError, RecursionError)


def read_gone(resource: Resource, body: bytes | Raw) -> Changed:
    """That the object in `body` is no more."""
    identity = _identity(resource, body)
    if identity is None:
        return Changed(resource.kind, None, _finding(resource, None, "deleted, but its name can't be read"))
    return Changed(resource.kind, Gone(Key(identity.namespace, identity.name), identity.uid))


def read_object(resource: Resource, body: bytes | Raw) -> Changed:
    """The object in `body`, which is JSON, as it is now."""
    if resource.kind == "Pod" and (pod := _plain(body)):
        return Changed("Pod", pod)
    try:
        if bytes(memoryview(body)[:1]) != b"{":
            raise ValueError("not an object")
        item = decode_document(Document(resource.kind, resource.api_version, Raw(body)))
        found = _own_node(item.object, body) if isinstance(item.object, Node) else item.object
    except Exception as error:  # a defect of ours too: it costs this object, not those that come after it
        return _unreadable(resource, body, str(error) or "nested too deeply")
    if not isinstance(found, Namespace | Pod | NetworkPolicy | OwnNode):
        return _unreadable(resource, body, f"not a {resource.kind} of {resource.api_version}")
    return _as_read(resource, body, item, found)


def _as_read(resource: Resource, body: bytes | Raw, item: Item, found: Object) -> Changed:
    if not item.problems:
        return Changed(resource.kind, found)
    if not item.unreadable:
        key = Key("" if isinstance(found, Namespace | OwnNode) else found.namespace, found.name)
        return Changed(resource.kind, found, Finding(key, item.problems, kept=False))
    identity = _identity(resource, body)
    key_of = Key(identity.namespace, identity.name) if identity else None
    return Changed(resource.kind, None, Finding(key_of, item.problems, kept=True))


def _unreadable(resource: Resource, body: bytes | Raw, reason: str) -> Changed:
    """Of a policy, whose own words can't be read, all of its namespace is its subject."""
    identity = _identity(resource, body)
    finding = _finding(resource, identity, reason)
    if identity and resource.kind == "NetworkPolicy":
        closing = NetworkPolicy(identity.namespace, identity.name, EVERYTHING, DIRECTIONS)
        return Changed(resource.kind, closing, msgspec.structs.replace(finding, kept=False))
    return Changed(resource.kind, None, finding)


def _finding(resource: Resource, identity: _Identity | None, reason: str) -> Finding:
    key = Key(identity.namespace, identity.name) if identity else None
    problem = Problem("", 0, resource.kind, str(key or "(unnamed)"), "", reason)
    return Finding(key, (problem,), kept=True)


def _plain(body: bytes | Raw) -> Pod | None:
    try:
        return plain_pod(Raw(body))
    except RecursionError:
        return None


def _identity(resource: Resource, body: bytes | Raw) -> _Identity | None:
    try:
        found = _named(body)
    except _UNREADABLE:
        return None
    namespaced = resource.kind in ("Pod", "NetworkPolicy")
    return found if found.name and bool(found.namespace) is namespaced else None


def _named(body: bytes | Raw) -> _Identity:
    try:
        return _NAMED.decode(body).metadata
    except (msgspec.DecodeError, UnicodeDecodeError):  # by releases of msgspec
        # Bytes that are no text may be anywhere; what the object is called may be readable all the same.
        return _NAMED.decode(bytes(body).decode(errors="replace")).metadata


def _own_node(node: Node, body: bytes | Raw) -> OwnNode:
    details: Any = _NODE_DETAILS.decode(body)
    taints = details.spec.taints if details.spec else None
    return OwnNode(
        node,
        uid=details.metadata.uid,
        annotations=details.metadata.annotations or {},
        taints=tuple((taint.key, taint.effect) for taint in taints or ()),
    )
