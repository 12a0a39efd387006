"""A cluster with a change on top: objects that would be there as well, or in the place of others, or gone."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TypeVar

from msgspec.structs import replace

from policy.errors import UsageError
from policy.labels import bare
from policy.model import Cluster, EndpointSlice, NetworkPolicy, Node, Pod, Service

_KINDS = {
    **dict.fromkeys(("netpol", "networkpolicy", "networkpolicies"), "netpol"),
    **dict.fromkeys(("po", "pod", "pods"), "pod"),
    **dict.fromkeys(("svc", "service", "services"), "svc"),
    **dict.fromkeys(("deploy", "deployment", "deployments"), "deploy"),
    **dict.fromkeys(("sts", "statefulset", "statefulsets"), "sts"),
    **dict.fromkeys(("ds", "daemonset", "daemonsets"), "ds"),
}
Known = TypeVar("Known", NetworkPolicy, Pod, Service, EndpointSlice, Node)


def overlay(cluster: Cluster, more: Cluster) -> Cluster:
    """`more` on top of `cluster`: an object takes the place of the one of its kind and name, a workload's template that
    of the workload's pods."""
    declared = {each.name for each in more.namespaces if each.source}
    known = {each.name for each in cluster.namespaces}
    namespaces = [each for each in cluster.namespaces if each.name not in declared]
    namespaces += [each for each in more.namespaces if each.source or each.name not in known]
    templates = {(pod.namespace, pod.workload) for pod in more.pods if pod.stands_in}
    pods = [pod for pod in cluster.pods if (pod.namespace, pod.workload) not in templates]
    return Cluster(
        namespaces,
        _on_top(pods, more.pods),
        _on_top(cluster.policies, more.policies),
        _on_top(cluster.services, more.services),
        _on_top(cluster.slices, more.slices),
        _on_top(cluster.nodes, more.nodes),
    )


def _on_top(old: list[Known], new: list[Known]) -> list[Known]:
    names = {_key(each) for each in new}
    return [each for each in old if _key(each) not in names] + new


def _key(each: NetworkPolicy | Pod | Service | EndpointSlice | Node) -> str:
    return each.name if isinstance(each, Node) else f"{each.namespace}/{each.name}"


def without(cluster: Cluster, names: Sequence[str]) -> Cluster:
    """`cluster` without what `names` call, as `shop/netpol/deny-all`. UsageError where nothing is called so."""
    for name in names:
        namespace, _, rest = name.partition("/")
        kind, slash, last = rest.partition("/")
        if not slash or kind not in _KINDS:
            raise UsageError(f"--without {bare(name)}: expected NAMESPACE/KIND/NAME, as in shop/netpol/deny-all")
        smaller = _taken(cluster, _KINDS[kind], namespace, last)
        if smaller == cluster:
            known = {f"{each.namespace}/netpol/{each.name}" for each in cluster.policies}
            known |= {f"{each.namespace}/pod/{each.name}" for each in cluster.pods if not each.stands_in}
            near = get_close_matches(name, sorted(known), n=3)
            raise UsageError(
                f"--without {bare(name)}: there is none" + (f"; near it: {', '.join(map(bare, near))}" if near else "")
            )
        cluster = smaller
    return cluster


def _taken(cluster: Cluster, kind: str, namespace: str, name: str) -> Cluster:
    key = f"{namespace}/{name}"
    if kind == "netpol":
        return replace(cluster, policies=[each for each in cluster.policies if each.key != key])
    if kind == "svc":
        slices = [each for each in cluster.slices if f"{each.namespace}/{each.service}" != key]
        return replace(cluster, services=[each for each in cluster.services if each.key != key], slices=slices)
    if kind == "pod":
        return replace(cluster, pods=[each for each in cluster.pods if each.key != key])
    workload = f"{kind}/{name}"
    pods = [each for each in cluster.pods if (each.namespace, each.workload) != (namespace, workload)]
    return replace(cluster, pods=pods)
