"""Makes the namespaces of hosts and wires them, and takes single ones away again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab import netns, wiring
from lab.topology import OUTSIDE, Host
from policy.errors import HostRefused


def build(fresh: Sequence[Host], hosts: Mapping[str, Host]) -> None:
    """Makes those of `hosts` that are `fresh`, routers first in both: the lines of a host need the veth that its
    router made. HostRefused where the kernel or `ip` refuses."""
    netns.create([host.netns for host in fresh])
    lines: dict[str, list[str]] = {host.place: [] for host in hosts.values()}
    for host in fresh:
        _set_sysctls(host)
        lines[host.place] += wiring.own_lines(host)
        if host.router:
            lines[host.router] += wiring.router_lines(host)
        if host.router not in ("", OUTSIDE):
            lines[OUTSIDE] += wiring.transit_lines(host, hosts[host.router])
    for place, its_lines in lines.items():
        if its_lines:
            _ip(hosts[place], its_lines)
    for host in fresh:
        if host.router:
            _settle(hosts[host.router], host.link)
            _settle(host, "eth0")


def unbuild(pod: Host, hosts: Mapping[str, Host]) -> None:
    """Takes away a pod's namespace, its veth, and the routes to it."""
    _ip(hosts[pod.router], wiring.router_removal_lines(pod))
    _ip(hosts[OUTSIDE], wiring.removal_lines(pod))
    netns.delete([pod.netns])


def swap(old: Host, fresh: Host, hosts: Mapping[str, Host]) -> None:
    """A pod instead of another one, which may have its addresses: on one node in a moment."""
    netns.create([fresh.netns])
    _set_sysctls(fresh)
    removal = wiring.router_removal_lines(old)
    if old.router != fresh.router:
        _ip(hosts[old.router], removal)
        removal = []
    _ip(hosts[fresh.router], [*removal, *wiring.router_lines(fresh)])
    _ip(fresh, wiring.own_lines(fresh))
    _ip(hosts[OUTSIDE], [*wiring.removal_lines(old), *wiring.transit_lines(fresh, hosts[fresh.router])])
    _settle(hosts[fresh.router], fresh.link)
    _settle(fresh, "eth0")
    netns.delete([old.netns])


def _set_sysctls(host: Host) -> None:
    is_router = host.router in ("", OUTSIDE)
    with netns.inside(host.netns):
        for name, value, optional in (
            *wiring.SYSCTLS,
            *(wiring.ROUTER_SYSCTLS if is_router else ()),
            *(wiring.BRIDGE_SYSCTLS if is_router and host.bridge else ()),
        ):
            netns.set_sysctl(name, value, optional)


def _settle(host: Host, device: str) -> None:
    with netns.inside(host.netns):
        if not netns.settle_link(device):
            raise HostRefused(f"{device} of {host.netns} has no carrier")


def _ip(host: Host, lines: Sequence[str]) -> None:
    done = netns.run_in(host.netns, ["ip", "-batch", "-"], "\n".join(lines) + "\n")
    if done.returncode != 0:
        raise HostRefused(f"can't wire {host.netns}: {done.stderr.strip()}")
