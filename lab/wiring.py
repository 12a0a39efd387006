"""The lines for `ip -batch` that wire a host to its router, and the sysctls of its namespace. Pure text.

Neighbours are permanent entries: nothing is resolved while packets are probed, and labs with many pods don't meet the
kernel's limit on neighbours, which all namespaces share. There is no duplicate address detection to wait for. Only pods
on one bridge find each other as hosts do, by ARP and neighbour discovery.
"""

from __future__ import annotations

from lab.topology import Host
from policy.cidr import BITS, Address

GATEWAYS = ("169.254.1.1", "fe80::1")
_ROUTER_MAC = "ee:ee:ee:ee:ee:ee"

# (sysctl, value, whether a kernel may lack it). ICMP errors are answers here: no limit on their rate.
SYSCTLS = (
    ("net.ipv4.conf.all.rp_filter", "0", False),
    ("net.ipv4.conf.default.rp_filter", "0", False),
    ("net.ipv4.ping_group_range", "0 0", False),
    ("net.ipv4.icmp_ratelimit", "0", False),
    ("net.ipv4.icmp_msgs_per_sec", "1000000", True),
    ("net.ipv4.icmp_msgs_burst", "1000000", True),
    ("net.ipv6.conf.all.disable_ipv6", "0", False),
    ("net.ipv6.conf.default.accept_dad", "0", False),
    ("net.ipv6.conf.default.addr_gen_mode", "1", False),
    ("net.ipv6.icmp.ratelimit", "0", False),
)
# What is bridged goes through the node's iptables, whatever its frames are tagged with.
BRIDGE_SYSCTLS = (
    ("net.bridge.bridge-nf-call-iptables", "1", False),
    ("net.bridge.bridge-nf-call-ip6tables", "1", False),
    ("net.bridge.bridge-nf-filter-vlan-tagged", "1", False),
)
ROUTER_SYSCTLS = (("net.ipv4.ip_forward", "1", False), ("net.ipv6.conf.all.forwarding", "1", False))


def own_lines(host: Host) -> list[str]:
    """In the host's own namespace, once its end of the veth is there."""
    device = "eth0" if host.router else "lo"
    lines = ["link set lo up", f"link set {device} up"]
    for address in host.addresses:
        lines.append(f"addr add {_slash(address)} dev {device}{' nodad' if address.family == 6 else ''}")
        if address.family == 6:
            # The kernel adds it too, but later, by a worker that a busy machine delays for seconds.
            lines.append(f"route add local {_slash(address)} dev {device} table local")
    lines += (f"route add {block} dev {device}" for block in host.neighbours)
    if host.bridge and not host.neighbours:
        lines.append(f"link add {host.bridge} address {_ROUTER_MAC} type bridge")
        lines.append(f"link set {host.bridge} up")
        lines.append(f"addr add {GATEWAYS[1]}/64 dev {host.bridge} nodad")
    for gateway in GATEWAYS if host.router else ():
        lines.append(f"neigh add {gateway} lladdr {_ROUTER_MAC} dev {device} nud permanent")
        lines.append(f"route add default via {gateway} dev {device} onlink")
    return lines


def router_lines(host: Host) -> list[str]:
    """In the namespace of the host's router: makes the veth, and routes the host's addresses to it."""
    peer = f"peer name eth0 address {host.mac} netns {host.netns}"
    if _is_port(host):
        # A port may send back what came by it: a pod reaches itself through a Service.
        lines = [
            f"link add {host.link} type veth {peer}",
            f"link set {host.link} master {host.bridge} up",
            f"link set {host.link} type bridge_slave hairpin on",
        ]
    else:
        lines = [
            f"link add {host.link} address {_ROUTER_MAC} type veth {peer}",
            f"link set {host.link} up",
            f"addr add {GATEWAYS[1]}/64 dev {host.link} nodad",
        ]
    device = _device(host)
    for address in host.addresses:
        lines.append(f"neigh add {address} lladdr {host.mac} dev {device} nud permanent")
        lines.append(f"route add {_slash(address)} dev {device}")
    return lines


def router_removal_lines(host: Host) -> list[str]:
    """In the namespace of the host's router: takes the veth away, and what leads to it."""
    lines = [f"link del {host.link}"]
    for address in host.addresses if _is_port(host) else ():
        lines.append(f"neigh del {address} dev {host.bridge}")
        lines.append(f"route del {_slash(address)} dev {host.bridge}")
    return lines


def _is_port(host: Host) -> bool:
    return bool(host.bridge and host.neighbours)


def _device(host: Host) -> str:
    """The router's interface that leads to the host."""
    return host.bridge if _is_port(host) else host.link


def transit_lines(host: Host, node: Host) -> list[str]:
    """In the namespace that joins the nodes: routes the addresses of a pod on `node`."""
    return [
        f"route add {_slash(address)} via {node.address(address.family)} dev {node.link} onlink"
        for address in host.addresses
    ]


def removal_lines(host: Host) -> list[str]:
    """In the namespace that joins the nodes: forgets the addresses of a pod."""
    return [f"route del {_slash(address)}" for address in host.addresses]


def _slash(address: Address) -> str:
    return f"{address}/{BITS[address.family]}"
