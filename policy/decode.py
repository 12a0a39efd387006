"""Bytes or trees in, objects and their problems out. Each object by itself: what is wrong with one never hides another.

    bytes ──documents──► Document ──decode──► Item ──gather──► Decoded (cluster, problems)

A document is decoded by msgspec straight into wire structs and then into the model, but for NetworkPolicies, whose
every field and problem counts: `decode_policy` reads them from the untyped tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from policy.decode_convert import convert
from policy.decode_parts import labels_of
from policy.decode_plain import plain_pod
from policy.decode_pod import namespace_model, pod_model, workload_of
from policy.decode_policy import API_VERSION, read_policy
from policy.decode_service import node_model, service_model, slice_model
from policy.decode_wire import (
    WireCronJob,
    WireMeta,
    WireNamespace,
    WireNode,
    WireObject,
    WirePod,
    WirePodTemplate,
    WireService,
    WireSlice,
    WireWorkload,
    as_stored,
)
from policy.documents import Document, documents, expand
from policy.gather import Decoded, Item, Object, gather
from policy.kinds import is_foreign, is_list, kind_problem
from policy.labels import bare, cut, dns_1035_label_problem, dns_label_problem, dns_subdomain_problem, quoted
from policy.model import Namespace
from policy.read_json import parse_json
from policy.source import Source
from policy.validate import Report
from policy.workloads import stand_in

__all__ = ["Decoded", "decode_document", "decode_objects", "read_documents", "ready"]


class _Kind(NamedTuple):
    """How a kind is read: `build` makes the model from the `wire` struct, the namespace, the name and the report."""

    version: str
    wire: type[WireObject]
    build: Callable[[Any, str, str, Report], Object | None]
    name_problem: Callable[[str], str]
    namespaced: bool


@cache
def _reader(wire: type[WireObject], stored: bool) -> tuple[msgspec.json.Decoder[WireObject], type[WireObject]]:
    """For the JSON of files, or for that of the API server: the decoder, and what it makes. Made when the first object
    of a kind is read."""
    made = as_stored(wire) if stored else wire
    return msgspec.json.Decoder(made), made


def ready() -> None:
    """Makes what reading from an API server takes. To be called before several threads read: where two of them make a
    decoder of one struct at the same time, msgspec (0.22) hands out the half-made one, and the process crashes."""
    for kind in ("Namespace", "Node", "Pod"):
        _reader(_KINDS[kind].wire, True)
    msgspec.json.Decoder(WireObject)  # which policies' metadata is converted to


def _kind(
    version: str,
    wire: type[WireObject],
    build: Callable[[Any, str, str, Report], Object | None],
    name_problem: Callable[[str], str] = dns_subdomain_problem,
    namespaced: bool = True,
) -> _Kind:
    return _Kind(version, wire, build, name_problem, namespaced)


def _workload(kind: str, version: str, wire: type[WireObject]) -> _Kind:
    def build(decoded: WireObject, namespace: str, name: str, report: Report) -> Object | None:
        return stand_in(decoded, kind, namespace, name, report)

    return _kind(version, wire, build)


_KINDS: dict[str, _Kind] = {
    "Namespace": _kind("v1", WireNamespace, namespace_model, dns_label_problem, namespaced=False),
    "Node": _kind("v1", WireNode, node_model, namespaced=False),
    "Pod": _kind("v1", WirePod, pod_model),
    "Service": _kind("v1", WireService, service_model, dns_1035_label_problem),
    "EndpointSlice": _kind("discovery.k8s.io/v1", WireSlice, slice_model),
    "Deployment": _workload("Deployment", "apps/v1", WireWorkload),
    "StatefulSet": _workload("StatefulSet", "apps/v1", WireWorkload),
    "DaemonSet": _workload("DaemonSet", "apps/v1", WireWorkload),
    "ReplicaSet": _workload("ReplicaSet", "apps/v1", WireWorkload),
    "Job": _workload("Job", "batch/v1", WireWorkload),
    "CronJob": _workload("CronJob", "batch/v1", WireCronJob),
    "PodTemplate": _workload("PodTemplate", "v1", WirePodTemplate),
}
_LONGEST_NAME = 63 + 1 + 253  # a namespace and a name
# Only for its name: policies are read by hand.
_POLICY = _kind(API_VERSION, WireObject, lambda *_: Namespace("", {}))


def read_documents(data: bytes, file: str) -> Decoded:
    """The objects in a file of YAML or JSON, lists taken apart. UnreadableInput where it is neither."""
    return gather(decode_document(document) for document in documents(data, file))


def decode_objects(
    trees: Iterable[Mapping[str, Any]], source_of: Callable[[Mapping[str, Any]], Source | None] | None = None
) -> Decoded:
    """The objects in parsed API objects; `source_of` says where one stands."""

    def place(tree: Mapping[str, Any], _: object) -> Source | None:
        return source_of(tree) if source_of else None

    return gather(decode_document(document) for tree in trees for document in expand(tree, place, ""))


def decode_document(document: Document) -> Item:
    """One object by itself; an item without an object for kinds and groups that mean nothing here."""
    if document.kind == "Pod" and document.api_version == "v1" and not document.source:
        # As the API server sends it.
        pod = plain_pod(document.body) if isinstance(document.body, Raw) else None
        if pod:
            # Its name is what messages would call it, of which there are none.
            return Item(document.kind, pod.key, pod)
    kind = _KINDS.get(document.kind)
    if kind is None and document.kind != "NetworkPolicy":
        return _decode_unread(document)
    if is_foreign(document.kind, document.api_version):
        return Item()
    if kind is None:
        return _decode_policy(document, Report(document.kind, document.source))
    return _decode_wire(document, kind)


def _decode_unread(document: Document) -> Item:
    """An object of no kind that is read. One that says it wrongly, but has a policy's podSelector, is a policy that
    isolates and grants nothing."""
    reason, field = kind_problem(document.kind, document.api_version), "kind"
    if not reason and is_list(document.kind, document.api_version) and "items" not in _tree(document):
        reason, field = "missing, expected a list of API objects", "items"
    if not reason:
        return Item()
    tree = _tree(document)
    spec, metadata = tree.get("spec"), tree.get("metadata")
    if isinstance(spec, Mapping) and "podSelector" in spec:
        report = Report("NetworkPolicy", document.source)
        report.say((field,), reason)
        return _decode_policy(document, report)
    report = Report("object", document.source, "of no kind")
    if document.kind:
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        name = name if name and isinstance(name, str) else "(unnamed)"
        shown, name = (bare(cut(text, _LONGEST_NAME)) for text in (document.kind, name))
        report = Report(shown, document.source, name)
    report.say((field,), reason)
    return Item(problems=report.problems)


def _decode_wire(document: Document, kind: _Kind) -> Item:
    report = Report(document.kind, document.source)
    wire = _wire(document, kind, report)
    unreadable = report.about("metadata")
    if document.api_version != kind.version:
        report.say(("apiVersion",), f"{quoted(document.api_version)} is not read, expected {kind.version}")
    namespace, name = _identity(wire.metadata, kind, report)
    made = kind.build(wire, namespace, name, report)
    owner = ""  # of workloads; pods have theirs in the model
    if kind.build is not pod_model and wire.metadata and wire.metadata.ownerReferences:
        owner = workload_of(wire.metadata.ownerReferences, wire.metadata.labels or {})
    return Item(document.kind, report.name, made, report.problems, unreadable, owner)


def _wire(document: Document, kind: _Kind, report: Report) -> WireObject:
    if isinstance(document.body, Raw):
        decoder, wire = _reader(kind.wire, not document.source)
        try:
            return decoder.decode(document.body)
        except msgspec.DecodeError:
            return convert(_tree(document), wire, report)
    return convert(document.body, kind.wire, report)


def _decode_policy(document: Document, report: Report) -> Item:
    tree = _tree(document)
    meta = convert({"metadata": tree.get("metadata")}, WireObject, report).metadata
    namespace, name = _identity(meta, _POLICY, report)
    labels_of(meta, ("metadata",), report)
    policy = read_policy(tree, document.api_version, namespace, name, report)
    distinct = bool(meta and meta.generateName and not meta.name)
    return Item(report.kind, report.name, policy, report.problems, distinct=distinct)


def _tree(document: Document) -> Mapping[str, Any]:
    if not isinstance(document.body, Raw):
        return document.body
    if document.source:
        return _parsed(document.body, document.source.file, document.source.line)
    try:
        # The fast way, for what the API server stores has no key twice.
        tree: Mapping[str, Any] = msgspec.json.decode(document.body)
    except (msgspec.DecodeError, RecursionError):
        return _parsed(document.body, "", 1)
    return tree


def _parsed(body: Raw, file: str, line: int) -> Mapping[str, Any]:
    tree: Mapping[str, Any] = parse_json(body, file, line)
    return tree


def _identity(meta: WireMeta | None, kind: _Kind, report: Report) -> tuple[str, str]:
    """Namespace and name, which `report` is told; "" is the namespace of what has none (row 37 for `default`)."""
    name = (meta and meta.name) or ""
    if name:
        reason = kind.name_problem(name)
    else:
        name = f"{meta.generateName}*" if meta and meta.generateName else "(unnamed)"
        reason = "" if meta and meta.generateName else "missing, expected the object's name"
    namespace = ((meta and meta.namespace) or "default") if kind.namespaced else ""
    report.name = bare(cut(f"{namespace}/{name}" if namespace else name, _LONGEST_NAME))
    if reason:
        report.say(("metadata", "name"), reason)
    if namespace and (reason := dns_label_problem(namespace)):
        report.say(("metadata", "namespace"), reason)
    return namespace, name
