"""Which flows are answered alike but for who their ends are: a block may hold ten thousand pods, of a few kinds."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from msgspec import Struct

from compiler.compile import Compiled
from compiler.verdict import End
from podfence.ends import one_pod
from policy.cidr import Prefix
from policy.model import Pod

_Span = tuple[int, int, int]


class _Traits(Struct, frozen=True, eq=False):
    """`like` is equal for pods that nothing tells apart but their addresses; `spans` are the blocks that the policies
    of such a pod name."""

    like: Hashable
    spans: tuple[_Span, ...]


class Likeness:
    """Of flows in one cluster. Two pairs of ends of equal likeness differ in nothing that a verdict, or the reason for
    one, is taken from."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._by_pod: dict[str, _Traits] = {}
        self._spans: dict[Hashable, tuple[_Span, ...]] = {}

    def of(self, src: End, dst: End) -> Hashable:
        one, other = (self._traits(end.pod) if end.pod else None for end in (src, dst))
        return _seen(src, one, dst, other), _seen(dst, other, src, one), one_pod(src, dst)

    def _traits(self, pod: Pod) -> _Traits:
        known = self._by_pod.get(pod.key)
        if known is None:
            selected_by = (pod.namespace, frozenset(pod.labels.items()), pod.selectable)
            spans = self._spans.get(selected_by)
            if spans is None:
                found = ((each.family, each.network, each.last) for each in self._prefixes(pod))
                spans = self._spans[selected_by] = tuple(dict.fromkeys(found))
            like = (selected_by, pod.ports, pod.phase, pod.deleting, pod.stands_in)
            known = self._by_pod[pod.key] = _Traits(like, spans)
        return known

    def _prefixes(self, pod: Pod) -> Iterator[Prefix]:
        for policy in self._compiled.selecting(pod):
            for rule in (*policy.ingress, *policy.egress):
                for peer in rule.peers:
                    if peer.block:
                        yield peer.block.cidr
                        yield from peer.block.excepts


def _seen(end: End, own: _Traits | None, other: End, others: _Traits | None) -> Hashable:
    """All of an end that counts. Those that are no pods, or in their node's network, are each like no other."""
    pod = end.pod
    if pod is None or own is None or pod.host_network:
        return pod and pod.key, end.address, end.node
    on_its_node = bool(other.node) and other.node == pod.node
    if end.address is None:
        return own.like, on_its_node
    family, value = end.address.family, end.address.value
    spans = others.spans if others else ()
    return own.like, on_its_node, family, tuple(f == family and first <= value <= last for f, first, last in spans)
