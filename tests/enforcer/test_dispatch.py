"""Dispatch: an address finds its own leaf and no other, in few comparisons."""

from random import Random

import pytest

from enforcer.readback.simulate import Packet, Simulator
from enforcer.rules.dispatch import dispatch
from enforcer.rules.names import DISPATCH, OTHERS
from enforcer.rules.ruleset import Drop, Dst, Return, Rule, RuleSet, Src
from policy.cidr import BITS, Address, Family, Prefix, parse_address
from policy.model import Direction


def addresses(count: int, family: Family, rng: Random) -> list[Address]:
    base = parse_address("10.244.0.0" if family == 4 else "fd00:10:244:1::").value
    return [Address(family, base + number) for number in rng.sample(range(1, 4096), count)]


def tree(direction: Direction, found: list[Address]) -> RuleSet:
    end = Dst if direction == "ingress" else Src
    leaves = {a: [Rule((end(Prefix(a.family, a.value, BITS[a.family])),), Drop())] for a in found}
    chains = dispatch(direction, DISPATCH[direction], leaves, OTHERS[direction])
    chains[OTHERS[direction]] = (Rule((), Return()),)
    return RuleSet(found[0].family if found else 4, {"FORWARD": DISPATCH[direction]}, chains, {})


@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("count", [0, 1, 16, 17, 250])
def test_only_leaves_are_found(count: int, family: Family, direction: Direction) -> None:
    rng = Random(count)
    found = addresses(count, family, rng)
    rules = tree(direction, found)
    simulator = Simulator(rules)
    outside = parse_address("192.0.2.1" if family == 4 else "2001:db8::1")
    for asked in {*found, *addresses(200, family, rng), outside}:
        ends = (outside, asked) if direction == "ingress" else (asked, outside)
        walk = simulator.walk("FORWARD", Packet(*ends, "tcp", 80))
        assert walk.outcome == ("drop" if asked in found else "accept")
    assert max(len(chain) for chain in rules.chains.values()) <= 5


def test_shared_levels_are_left_out() -> None:
    """250 pods of one /24: three levels of four branches below the root, no chain above it."""
    found = [Address(4, parse_address("10.244.1.0").value + host) for host in range(250)]
    chains = tree("ingress", found).chains
    assert len(chains[DISPATCH["ingress"]]) == 5
    assert len(chains) == 1 + 4 + 16 + 63 + 1
