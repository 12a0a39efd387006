"""A pod that is being deleted keeps the interface that it has, and gets no other. Pure.

kubelet makes no new sandbox for such a pod. So an interface that comes meanwhile with its address, while its object is
still there, is the next owner's of that address, of whom nobody has said anything yet: it must not get the rules of the
old one.
"""

from __future__ import annotations

from collections.abc import Iterable

from enforcer.attachment.attach import Attached
from enforcer.attachment.hostview import HostView
from policy.model import Pod

WHY = "it is being deleted, and the interface that it had is gone"
_Who = tuple[str, str]  # key and UID: a StatefulSet's next pod has the same key


class Leaving:
    """Remembers by which interface each pod was last found: by its index, which no other interface of the host has
    after it. Of a pod that was being deleted when it was first seen, what is found first is its own."""

    def __init__(self) -> None:
        self._last: dict[_Who, int] = {}

    def followed_by_others(self, host: HostView, pods: Iterable[Pod], found: Attached) -> dict[str, str]:
        """The pods, with the reason, whose interface in `found` can't be theirs."""
        indexes = {host.name(index): index for index in host.links}
        before, self._last = self._last, {}
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
