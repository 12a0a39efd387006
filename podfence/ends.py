"""From the names that people use to the ends of a flow.

A name is a pod (`web` with a default namespace, `shop/web`, `shop/pod/web`), a workload (`shop/deploy/web`,
`deploy/web`), a node (`node/n1`), `internet`, or an address, which is whoever has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from msgspec import Struct

from compiler.compile import Compiled
from compiler.verdict import End
from policy.cidr import Address, parse_address
from policy.errors import UsageError
from policy.model import Pod

# Addresses that are nobody's: set aside for documentation (RFC 5737, RFC 3849).
INTERNET = (parse_address("203.0.113.1"), parse_address("2001:db8::1"))
_KINDS = {
    "po": "pod",
    "pods": "pod",
    "deployment": "deploy",
    "deployments": "deploy",
    "statefulset": "sts",
    "statefulsets": "sts",
    "daemonset": "ds",
    "daemonsets": "ds",
    "replicaset": "rs",
    "replicasets": "rs",
    "jobs": "job",
    "cronjobs": "cronjob",
    "cj": "cronjob",
    "no": "node",
    "nodes": "node",
}
KINDS = ("pod", "deploy", "sts", "ds", "rs", "job", "cronjob", "node")


class Named(Struct, frozen=True):
    """What a name stands for: its full form, and an end for each of its addresses (one without, where it has none)."""

    name: str
    ends: tuple[End, ...]


class Ends:
    """Names looked up in one cluster. Each name has one reading, or is refused with all of them."""

    def __init__(self, compiled: Compiled, namespace: str = "default") -> None:
        self._compiled = compiled
        self._namespace = namespace
        self._nodes = {node.name: node.addresses for node in compiled.cluster.nodes}
        self._node_of: dict[Address, str] = {a: name for name, addresses in self._nodes.items() for a in addresses}
        self._workloads: dict[str, list[Pod]] = {}
        for pod in compiled.cluster.pods:
            if pod.host_network and pod.node:
                self._node_of.update((address, pod.node) for address in pod.addresses)
            if pod.workload:
                self._workloads.setdefault(f"{pod.namespace}/{pod.workload}", []).append(pod)
        self._known: dict[str, Named] = {}

    def find(self, name: str) -> Named:
        """UsageError where nothing has that name, with the nearest ones, or where two things do, with both."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._find(name)
        return found

    def _find(self, name: str) -> Named:
        if name == "internet":
            return Named(name, tuple(End(address=address) for address in INTERNET))
        try:
            return Named(name, (self._at(parse_address(name)),))
        except ValueError:
            pass
        readings = list(dict.fromkeys(self._readings(name)))
        if len(readings) > 1:
            raise UsageError(f"{name!r} is ambiguous: " + " or ".join(readings))
        if not readings:
            raise UsageError(f"no pod, workload or node is called {name!r}{self._nearest(name)}")
        return self._named(readings[0])

    def _at(self, address: Address) -> End:
        return End(self._compiled.pod_at(address), address, self._node_of.get(address, ""))

    def _readings(self, name: str) -> Iterable[str]:
        """The full names that `name` can stand for: `namespace/pod/web`, `namespace/deploy/web`, `node/n1`."""
        parts = name.split("/")
        if len(parts) == 1:
            candidates = [(self._namespace, "pod", name)]
        elif len(parts) == 2:
            kind = _KINDS.get(parts[0], parts[0])
            candidates = [(parts[0], "pod", parts[1]), (self._namespace, kind, parts[1])]
        else:
            candidates = [(parts[0], _KINDS.get(parts[1], parts[1]), "/".join(parts[2:]))]
        for namespace, kind, rest in candidates:
            if kind == "node" and rest in self._nodes:
                yield f"node/{rest}"
            elif kind == "pod" and f"{namespace}/{rest}" in self._compiled.pods:
                yield f"{namespace}/pod/{rest}"
            elif f"{namespace}/{kind}/{rest}" in self._workloads:
                yield f"{namespace}/{kind}/{rest}"

    def _named(self, full: str) -> Named:
        if full.startswith("node/") and full.count("/") == 1:
            node = full.removeprefix("node/")
            return Named(full, tuple(End(None, address, node) for address in self._nodes[node]) or (End(node=node),))
        namespace, kind, rest = full.split("/", 2)
        if kind != "pod":
            pods = self._workloads[full]
            # A finished pod's address may be someone else's: what is asked about is those that run, or would again.
            pods = [pod for pod in pods if not pod.finished] or pods
            return Named(full, tuple(end for pod in pods for end in _ends(pod)))
        pod = self._compiled.pods[f"{namespace}/{rest}"]
        return Named(pod.key, _ends(pod))

    def _nearest(self, name: str) -> str:
        known = [*self._compiled.pods, *self._workloads, *(f"node/{node}" for node in self._nodes)]
        qualified = name if "/" in name else f"{self._namespace}/{name}"
        near = get_close_matches(qualified, known, n=3, cutoff=0.6)
        return f"; near it: {', '.join(near)}" if near else ""


def _ends(pod: Pod) -> tuple[End, ...]:
    node = pod.node if pod.host_network else ""
    return tuple(End(pod, address, node) for address in pod.addresses) or (End(pod, None, node),)


def pairs(src: Named, dst: Named) -> tuple[tuple[End, End], ...]:
    """The pairs of ends that can speak: those of one family, where both have addresses. Where a workload is an end, a
    pod of it to itself is not what is asked about, unless it has no other."""
    speaking = tuple(
        (one, other)
        for one in src.ends
        for other in dst.ends
        if not (one.address and other.address) or one.address.family == other.address.family
    )
    apart = tuple(pair for pair in speaking if not _one_pod(*pair))
    return apart or speaking


def _one_pod(one: End, other: End) -> bool:
    return one.pod is not None and other.pod is not None and one.pod.key == other.pod.key
