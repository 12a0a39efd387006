"""A pod that is being deleted keeps the interface that it has, and gets no other. Pure.

kubelet makes no new sandbox for such a pod. So once its interface is gone the pod is, though its object is still there.
An interface that comes then with its address is the next owner's of that address, of whom nobody has said anything yet:
it must get neither the rules of the old one nor its connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from enforcer.attachment.attach import Attached
from enforcer.attachment.hostview import HostView
from policy.model import Pod

WHY = "it is being deleted, and the interface that it had is gone"
Who = tuple[str, str]  # key and UID: a StatefulSet's next pod has the same key


class Leaving:
    """Remembers by which interface each pod was last found: by its index, which no other interface of the host has
    after it. Of a pod that was being deleted when it was first seen, what is found first is its own; `last` is what an
    earlier agent remembered."""

    def __init__(self, last: Mapping[Who, int] | None = None) -> None:
        self._last = dict(last or {})

    @property
    def last(self) -> Mapping[Who, int]:
        """Never changed, but replaced."""
        return self._last

    def followed_by_others(
        self, host: HostView, pods: Iterable[Pod], found: Attached, are_all: bool = True
    ) -> dict[str, str]:
        """The pods, with the reason, whose interface in `found` can't be theirs. Others than `pods` are forgotten where
        these `are_all`."""
        indexes = {host.name(index): index for index in host.links}
        before, self._last = self._last, {} if are_all else dict(self._last)
        others = {}
        for pod in pods:
            who = (pod.key, pod.uid)
            now = indexes.get(found.veths.get(pod.key, ""))
            last = before.get(who)
            if pod.deleting and last is not None and now is not None and now != last:
                others[pod.key] = WHY
                now = last
            if (kept := last if now is None else now) is not None:
                self._last[who] = kept
        return others

    def present(self, host: HostView, pods: Mapping[str, Pod]) -> list[Pod]:
        """Those of `pods`, by key, that have not gone already."""
        there = {None, *host.links}
        return [pod for pod in pods.values() if not pod.deleting or self._last.get((pod.key, pod.uid)) in there]
