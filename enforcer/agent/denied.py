"""How many packets were denied to and from each pod, off the kernel's own counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enforcer.kernel.ipset import Sets
from enforcer.readback.status import Denied
from enforcer.rules import names
from policy.cidr import Address, Family
from policy.errors import HostRefused
from policy.model import DIRECTIONS


def denied_packets(families: Iterable[Family], pod_of: Callable[[Address], str]) -> list[Denied]:
    """Since each pod's rules were made; none while the kernel can't be asked. Any thread may call it."""
    found = []
    try:
        with Sets() as sets:
            for family in families:
                for direction in DIRECTIONS:
                    counted = sets.read_one(names.set_name(family, f"denied-{direction}"), family)
                    for element, packets in counted.counts.items() if counted else ():
                        address = Address(family, element.prefix.network)
                        if packets and (pod := pod_of(address)):
                            found.append(Denied(pod, str(address), direction, packets))
    except HostRefused:
        return []
    return found
