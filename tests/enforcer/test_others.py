"""Veths by name alone: every one is in one set, and no set takes more than the kernel does."""

import os

import pytest

from enforcer.rules.others import INTERFACES_PER_SET, veth_sets
from enforcer.rules.render import create_text
from enforcer.rules.ruleset import IpSet
from lab import netns


@pytest.mark.parametrize("count", [0, 1, 110, 250, 1000])
def test_each_veth_is_in_one_set_and_no_set_is_too_large(count: int) -> None:
    veths = [f"cali{number:011x}" for number in range(count)]
    found = veth_sets(veths, 4)
    assert sorted(element.interface for each in found for element in each.elements) == veths
    assert max(len(each.elements) for each in found) <= INTERFACES_PER_SET
    assert len({each.name for each in found}) == len(found)


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
