"""Veths by name alone: every one is in one set, and no set takes more than the kernel does."""

import os

import pytest
from msgspec.structs import replace

from compiler.compile import compile_cluster
from enforcer.readback.simulate import Packet, Simulator
from enforcer.readback.why import reasons
from enforcer.rules.layout import NodeView, layout
from enforcer.rules.others import INTERFACES_PER_SET, veth_sets
from enforcer.rules.render import create_text
from enforcer.rules.ruleset import IpSet
from enforcer.rules.view import abroad
from lab import netns
from policy.cidr import Address, parse_address, parse_cidr
from policy.model import Cluster, Pod


@pytest.mark.parametrize("count", [0, 1, 110, 250, 1000])
def test_each_veth_is_in_one_set_and_no_set_is_too_large(count: int) -> None:
    veths = [f"cali{number:011x}" for number in range(count)]
    found = veth_sets(veths, 4)
    assert sorted(element.interface for each in found for element in each.elements) == veths
    assert max(len(each.elements) for each in found) <= INTERFACES_PER_SET
    assert len({each.name for each in found}) == len(found)


HERE, THERE, NOBODY = (parse_address(f"10.1.0.{number}") for number in (1, 2, 3))
BLOCKS = (parse_cidr("10.1.0.0/24"),)
FAR = parse_address("192.0.2.1")


@pytest.mark.parametrize("uplinks", [("eth0",), ()])
def test_an_address_of_another_nodes_pod_is_believed_of_an_uplink_alone(uplinks: tuple[str, ...]) -> None:
    pods = [
        Pod("shop", "here", {}, node="n1", addresses=(HERE,)),
        Pod("shop", "there", {}, node="n2", addresses=(THERE,)),
    ]
    compiled = compile_cluster(Cluster([], pods, [], [], [], []))
    node = NodeView("n1", {"shop/here": "veth0"}, BLOCKS, uplinks, abroad=frozenset({THERE}))
    simulator = Simulator(layout(compiled, node, 4))

    def passes(src: Address, came_by: str, dst: Address, leaves_by: str) -> bool:
        packet = Packet(src, dst, "tcp", 80, came_by, leaves_by)
        found = simulator.walk("FORWARD", packet).outcome == "accept"
        why = reasons(compiled, node, "FORWARD", packet)
        assert all(reason.allowed for reason in why) == found, why
        return found

    known = bool(uplinks)
    assert passes(THERE, "eth0", HERE, "veth0") == passes(HERE, "veth0", THERE, "eth0") == known
    assert passes(THERE, "eth0", FAR, "eth0") == known, "also where it only passes through"
    for interface in ("veth1", "veth0"):
        assert not passes(THERE, interface, FAR, "eth0"), "perhaps a pod that has just got the address here"
        assert not passes(FAR, "eth0", THERE, interface)
    assert not passes(NOBODY, "eth0", HERE, "veth0") and not passes(HERE, "veth0", NOBODY, "eth0")
    assert passes(FAR, "eth0", HERE, "veth0")


def test_whose_addresses_are_another_nodes() -> None:
    def of(**more: object) -> dict[str, frozenset[Address]]:
        pod = Pod("shop", "there", {}, node="n2", addresses=(THERE, FAR, parse_address("fd00::1")))
        return abroad([replace(pod, **more)], "n1", BLOCKS)  # type: ignore[arg-type]

    assert of() == {"shop/there": frozenset({THERE})}
    assert not of(node="n1") and not of(node="") and not of(host_network=True) and not of(phase="Failed")
    assert not of(addresses=(FAR,))


@pytest.mark.kernel
def test_the_kernel_takes_so_many_and_no_more() -> None:
    name = f"pf-others-{os.getpid()}"
    netns.create([name])
    try:
        for family in (4, 6):
            for ipset in veth_sets((f"veth{number}" for number in range(250)), family):
                done = netns.run_in(name, ["ipset", "restore"], create_text(ipset, family))
                assert done.returncode == 0, done.stderr
        elements = frozenset(e for each in veth_sets((f"v{n}" for n in range(90)), 4) for e in each.elements)
        full = netns.run_in(name, ["ipset", "restore"], create_text(IpSet("pf-4-x", "hash:net,iface", elements), 4))
        assert "full" in full.stderr
    finally:
        netns.delete([name])
