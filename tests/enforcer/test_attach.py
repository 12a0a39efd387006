"""Which interface is whose: each source alone, what they say together, and what is left in doubt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import count

import pytest
from msgspec.structs import replace

from enforcer.attachment.attach import Attached, attach
from enforcer.attachment.cni_cache import AddressKnown, Hints
from enforcer.attachment.hostview import HostView
from enforcer.attachment.places import hashed_names
from enforcer.kernel.rtnetlink import Link, Own, Route
from policy.cidr import Address, Prefix, parse_address, parse_cidr
from policy.model import Pod

CIDR = (parse_cidr("10.244.1.0/24"),)
A, B, C = "10.244.1.2", "10.244.1.3", "10.244.1.4"
MAC_A, MAC_B = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"


class Host:
    """A host in the making. Interfaces are named by what they are; `v…` are veths whose other end is elsewhere."""

    def __init__(self) -> None:
        self.links: dict[int, Link] = {}
        self._indexes = count(1)
        self.routes: list[Route] = []
        self.own: list[Own] = []
        self.neighbours: dict[tuple[int, Address], bytes] = {}
        self.fdb: dict[tuple[int, bytes, int], int] = {}
        self.add("eth0", kind="")
        self.route("0.0.0.0/0", "eth0", gateway=True)
        self.route("192.168.0.0/24", "eth0")

    def add(self, *names: str, kind: str = "veth", master: str = "", elsewhere: bool = True) -> None:
        for name in names:
            index = next(self._indexes)
            peer_netns = 0 if elsewhere and kind == "veth" else -1
            self.links[index] = Link(index, name, kind, self.index(master), 2, peer_netns)

    def index(self, name: str) -> int:
        return next((link.index for link in self.links.values() if link.name == name), 0)

    def route(self, prefix: str, *names: str, gateway: bool = False, table: int = 254) -> None:
        self.routes.append(Route(parse_cidr(prefix), table, tuple(map(self.index, names)), gateway))

    def bridge(self, name: str, address: str, *ports: str) -> None:
        self.add(name, kind="bridge")
        self.own.append(Own(self.index(name), parse_address(address.partition("/")[0]), 24))
        self.route(str(parse_cidr(address)), name)
        self.add(*ports, master=name)

    def seen(self, address: str, mac: bytes, port: str, vlan: int = 0) -> None:
        bridge = self.links[self.index(port)].master
        self.neighbours[bridge, parse_address(address)] = mac
        self.fdb[bridge, mac, vlan] = self.index(port)

    @property
    def view(self) -> HostView:
        return HostView(self.links, frozenset(self.routes), frozenset(self.own), self.neighbours, self.fdb)

    def attach(
        self,
        *pods: Pod,
        given: Mapping[str, str] | None = None,
        hints: Sequence[AddressKnown] = (),
        cidrs: Sequence[Prefix] = CIDR,
        host_interfaces: Sequence[str] = (),
    ) -> Attached:
        found = attach(self.view, pods, given, Hints(hints), cidrs, host_interfaces)
        assert found.veths.keys() | found.unattached.keys() == {pod.key for pod in pods if pod.selectable}
        assert not found.veths.keys() & found.unattached.keys()
        assert len(set(found.veths.values())) == len(found.veths), "two pods behind one interface"
        assert not set(found.strangers) & {*found.veths.values(), *found.uplinks}
        return found


def pod(name: str, *addresses: str, uid: str = "", deleting: bool = False, phase: str = "Running") -> Pod:
    known = tuple(map(parse_address, addresses))
    return Pod("shop", name, {}, uid or f"uid-{name}", "n1", known, phase=phase, deleting=deleting)


def said(of: Pod, *interfaces: str, plugin: str = "ptp", written: int = 1) -> AddressKnown:
    file = f"net-{written}-eth0"
    return AddressKnown(file, of.namespace, of.name, of.uid, of.addresses, interfaces, plugin, written)


def test_route() -> None:
    host = Host()
    host.add("v1", "v2")
    host.route(f"{A}/32", "v1")
    host.route(f"{B}/32", "v2")
    found = host.attach(pod("a", A), pod("b", B))
    assert found.veths == {"shop/a": "v1", "shop/b": "v2"}
    assert (found.bridges, found.uplinks, found.unattached) == ({}, ("eth0",), {})


def test_both_families_lead_to_one_interface_or_to_none() -> None:
    host = Host()
    host.add("v1", "v2")
    host.route(f"{A}/32", "v1")
    host.route("fd00::2/128", "v1")
    assert host.attach(pod("a", A, "fd00::2")).veths == {"shop/a": "v1"}
    host.route(f"{B}/32", "v2")
    found = host.attach(pod("a", A, "fd00::2", B))
    assert found.unattached["shop/a"] == (
        f"more than one interface is said to lead to it: the route to {A}: v1; the route to fd00::2: v1; "
        f"the route to {B}: v2"
    )
    assert found.strangers == ("v1", "v2"), "both are pods', and neither is known whose"


def test_a_route_of_another_table() -> None:
    host = Host()
    host.add("vlan.eth.1", kind="vlan")
    host.add("v1")
    host.route("0.0.0.0/0", "vlan.eth.1", gateway=True, table=101)
    host.route(f"{A}/32", "v1", table=101)
    found = host.attach(pod("a", A), cidrs=())
    assert found.veths == {"shop/a": "v1"}
    assert found.uplinks == ("eth0", "vlan.eth.1")
    host.add("v2")
    host.route(f"{A}/32", "v2")
    assert not host.attach(pod("a", A)).veths


@pytest.mark.parametrize("way", ["gateway", "uplink", "bridge", "host", "dummy", "plus", "several"])
def test_a_route_that_is_no_pods(way: str) -> None:
    host = Host()
    host.add("v1", "v+")
    host.add("d0", kind="dummy")
    host.bridge("br0", "10.9.0.1/24")
    names = {"uplink": "eth0", "bridge": "br0", "dummy": "d0", "plus": "v+"}
    if way == "several":
        host.add("v2")
        host.route(f"{A}/32", "v1", "v2")
    else:
        host.route(f"{A}/32", names.get(way, "v1"), gateway=way == "gateway")
    found = host.attach(pod("a", A), host_interfaces=["v*"] if way == "host" else [])
    assert not found.veths
    assert found.unattached["shop/a"]


def test_a_veth_that_leads_further_is_no_pods() -> None:
    """As the uplink of a node that is itself a container."""
    host = Host()
    host.add("v1")
    host.route("172.18.0.0/16", "v1")
    found = host.attach(pod("a", A))
    assert not found.veths
    assert found.uplinks == ("eth0", "v1")
    assert not found.strangers


@pytest.mark.parametrize("name", ["v1", hashed_names("shop", "other")[0]])
def test_a_pods_veth_that_leads_further_is_no_uplink(name: str) -> None:
    """Somebody routes a network to a pod: it can't be told from what is behind it, and must not pass for an uplink."""
    host = Host()
    host.add(name)
    host.route(f"{A}/32", name)
    host.route("10.50.0.0/16", name, gateway=True)
    found = host.attach(pod("a", A))
    assert found.unattached == {"shop/a": f"{name}, where {A} is routed to, leads to other hosts or networks too"}
    assert found.uplinks == ("eth0",)


def test_bridge() -> None:
    host = Host()
    host.bridge("cni0", "10.244.1.1/24", "v1", "v2")
    host.seen(A, MAC_A, "v1")
    found = host.attach(pod("a", A), pod("b", B))
    assert found.veths == {"shop/a": "v1"}
    assert found.unattached == {"shop/b": f"cni0 has not seen {B} at any of its ports yet"}
    assert found.bridges == {"v1": "cni0", "v2": "cni0"}
    assert found.strangers == ("v2",)
    assert found.uplinks == ("eth0",), "what its ports send comes by the bridge"


def test_a_bridge_with_a_route_for_each_address() -> None:
    host = Host()
    host.bridge("cni0", "10.99.0.1/24", "v1")
    host.route(f"{A}/32", "cni0")
    host.route(f"{B}/32", "cni0")
    host.seen(A, MAC_A, "v1")
    found = host.attach(pod("a", A), pod("b", B))
    assert found.veths == {"shop/a": "v1"}
    assert found.unattached == {"shop/b": f"cni0 has not seen {B} at any of its ports yet"}


def test_a_bridge_that_saw_an_address_at_two_ports() -> None:
    host = Host()
    host.bridge("cni0", "10.244.1.1/24", "v1", "v2")
    host.seen(A, MAC_A, "v1", vlan=1)
    host.seen(A, MAC_A, "v2", vlan=2)
    found = host.attach(pod("a", A))
    assert not found.veths
    assert found.strangers == ("v1", "v2")


def test_what_a_pod_forges_takes_nothing_from_others() -> None:
    """Behind v1 is a, which says that b's address is its own."""
    host = Host()
    host.bridge("cni0", "10.244.1.1/24", "v1", "v2")
    host.seen(A, MAC_A, "v1")
    host.seen(B, MAC_A, "v1")
    a, b = pod("a", A), pod("b", B)
    firm = host.attach(a, b, hints=[said(a, "cni0", "v1", written=1), said(b, "cni0", "v2", written=2)])
    assert firm.veths == {"shop/a": "v1", "shop/b": "v2"}
    half = host.attach(a, b, hints=[said(a, "cni0", "v1")])
    assert half.veths == {"shop/a": "v1"}
    assert half.unattached == {"shop/b": "v1 is said to lead to shop/a too"}
    observed = host.attach(a, b)
    assert not observed.veths
    assert observed.strangers == ("v1", "v2")


def test_what_a_container_of_another_bridge_says_is_not_heard() -> None:
    host = Host()
    host.bridge("cni0", "10.244.1.1/24", "v1")
    host.bridge("docker0", "172.17.0.1/16", "v2")
    host.seen(A, MAC_B, "v2")
    assert not host.attach(pod("a", A)).veths


@pytest.mark.parametrize("prefix", ["cali", "eni", "azv", "vlan"])
def test_named_by_hash(prefix: str) -> None:
    name = prefix + hashlib.sha1(b"shop.a", usedforsecurity=False).hexdigest()[:11]
    assert name in hashed_names("shop", "a")
    host = Host()
    assert not host.attach(pod("a", A)).veths
    host.add(name)
    assert host.attach(pod("a", A)).veths == {"shop/a": name}
    host.add("v1")
    host.route(f"{A}/32", "v1")
    found = host.attach(pod("a", A))
    assert not found.veths, "the name and the route disagree"
    assert set(found.strangers) == {name, "v1"}


def test_the_hash_is_the_plugins() -> None:
    """As `printf default.sample-pod | sha1sum` has it, and the VPC CNI's own tests."""
    assert hashed_names("default", "sample-pod")[:2] == ("calicc21c2d7785", "enicc21c2d7785")


def test_cni_result() -> None:
    host = Host()
    host.bridge("cni0", "10.244.1.1/24", "v1", "v2")
    a = pod("a", A)
    assert host.attach(a, hints=[said(a, "cni0", "v1")]).veths == {"shop/a": "v1"}
    assert not host.attach(a, hints=[said(a, "cni0")]).veths
    assert not host.attach(a, hints=[said(a, "cni0", "gone")]).veths
    assert not host.attach(a, hints=[said(a, "v1", "v2")]).veths
    assert not host.attach(replace(a, uid="other"), hints=[said(a, "v1")]).veths


def test_given_goes_before_all_else() -> None:
    host = Host()
    host.add("v1", "v2")
    host.route(f"{A}/32", "v1")
    host.route(f"{B}/32", "v2")
    found = host.attach(pod("a", A), pod("b", B), given={"shop/a": "v2"})
    assert found.veths == {"shop/a": "v2"}
    assert found.unattached == {"shop/b": "v2 is said to lead to shop/a too"}
    twice = host.attach(pod("a", A), pod("b", B), given={"shop/a": "v2", "shop/b": "v2"})
    assert not twice.veths
    assert host.attach(pod("a", A), given={"shop/a": "later0"}).veths == {"shop/a": "later0"}


def test_two_pods_behind_one_veth() -> None:
    host = Host()
    host.add("v1")
    host.route(f"{A}/32", "v1")
    host.route(f"{B}/32", "v1")
    found = host.attach(pod("a", A), pod("b", B))
    assert found.unattached == {
        "shop/a": "v1 is said to lead to shop/b too",
        "shop/b": "v1 is said to lead to shop/a too",
    }
    assert found.strangers == ("v1",)


def test_an_address_that_two_pods_claim() -> None:
    host = Host()
    host.add("v1")
    host.route(f"{A}/32", "v1")
    found = host.attach(pod("a", A), pod("b", A))
    assert set(found.unattached.values()) == {"its address is claimed by another pod too"}
    leaving = host.attach(pod("a", A, deleting=True), pod("b", A))
    assert leaving.veths == {"shop/b": "v1"}
    assert leaving.unattached.keys() == {"shop/a"}
    done = host.attach(pod("a", A, phase="Succeeded"), pod("b", A))
    assert done.veths == {"shop/b": "v1"}
    assert not done.unattached


def test_a_veths_name_that_comes_again() -> None:
    """Quickly: first it is a's; then it has another index, and b's route."""
    host = Host()
    host.add("v1")
    host.route(f"{A}/32", "v1")
    pods = pod("a", A), pod("b", B)
    assert host.attach(*pods).veths == {"shop/a": "v1"}
    del host.links[host.index("v1")]
    host.add("v1")
    assert not host.attach(*pods).veths, "the route leads to an index that is no more"
    host.route(f"{B}/32", "v1")
    assert host.attach(*pods).veths == {"shop/b": "v1"}


@pytest.mark.parametrize("plugin", ["macvlan", "ipvlan"])
def test_pods_past_the_node(plugin: str) -> None:
    host = Host()
    a = pod("a", "192.168.0.77")
    assert host.attach(a, hints=[said(a, plugin=plugin)]).unattached == {
        "shop/a": f"{plugin}: its packets pass no interface of this node, only inside the pod's own network namespace"
    }
    assert "only inside the pod's own network namespace" in host.attach(a).unattached["shop/a"]


def test_open_vswitch_is_past_the_rules() -> None:
    host = Host()
    host.add("ovs-system", kind="openvswitch")
    host.add("v1", master="ovs-system")
    host.route(f"{A}/32", "v1")
    assert host.attach(pod("a", A)).unattached == {
        "shop/a": "v1 is a port of ovs-system (openvswitch), whose packets pass no rules of the node"
    }


def test_strangers_are_only_pods() -> None:
    host = Host()
    host.add("v1", "lxc1", "cali0123456789a")
    host.add("inner", elsewhere=False)
    host.bridge("cni0", "10.244.1.1/24", "v2")
    host.bridge("docker0", "172.17.0.1/16", "vethd0cker")
    host.route(f"{C}/32", "v1")
    host.route(f"{B}/32", "inner")
    host.route("172.30.0.5/32", "lxc1")
    found = host.attach(pod("a", A))
    assert found.strangers == ("cali0123456789a", "v1", "v2")
    assert found.bridges == {"v2": "cni0"}
    without = host.attach(pod("a", A), cidrs=())
    assert without.strangers == ("cali0123456789a",)
    declared = host.attach(pod("a", A), host_interfaces=["v2", "cali*"])
    assert declared.strangers == ("v1",)


def test_the_other_ports_of_a_pods_bridge() -> None:
    """Without pod CIDRs a bridge is the pods' because a pod is on it."""
    host = Host()
    host.bridge("br0", "192.168.7.1/24", "v1", "v2", "lxc1")
    host.add("eth1", kind="", master="br0")
    host.add("vx0", kind="vxlan", master="br0")
    host.add("inner", master="br0", elsewhere=False)
    a = pod("a", "192.168.7.5")
    assert host.attach(a, cidrs=()).bridges == {}
    found = host.attach(a, hints=[said(a, "v1")], cidrs=(), host_interfaces=["lxc*"])
    assert found.veths == {"shop/a": "v1"}
    assert found.strangers == ("v2",)
    assert found.uplinks == ("eth0", "eth1", "lxc1", "vx0"), "br0 and inner may have pods behind them"
    assert found.bridges == dict.fromkeys(("v1", "v2", "eth1", "lxc1", "vx0"), "br0")


def test_a_bridge_that_joins_only_hardware_is_an_uplink() -> None:
    host = Host()
    host.bridge("br0", "192.168.7.1/24")
    assert host.attach().uplinks == ("eth0",), "pods may come"
    host.add("eth1", kind="", master="br0")
    assert host.attach().uplinks == ("br0", "eth0")
    host.add("v1", master="br0")
    assert host.attach().uplinks == ("eth0",)
