"""Addresses that some pods have, kept up pod by pod, of which only all together matter. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from policy.cidr import Address


class AddressesOf:
    """`every` is those of all the pods, and the same object until it changes."""

    def __init__(self) -> None:
        self.every: frozenset[Address] = frozenset()
        self._by_pod: dict[str, frozenset[Address]] = {}

    def renew(self, pods: Collection[str], found: Mapping[str, frozenset[Address]]) -> bool:
        """The pods of these keys have what was `found` of them, and nothing else. Whether that changes `every`; only
        where it may, what is known of all pods is looked at."""
        others = [key for key in pods if self._by_pod.get(key) != found.get(key)]
        if not others:
            return False
        for key in others:
            if key in found:
                self._by_pod[key] = found[key]
            else:
                del self._by_pod[key]
        every = frozenset().union(*self._by_pod.values())
        if every == self.every:
            return False
        self.every = every
        return True
