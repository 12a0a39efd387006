"""Modes with real packets, on routed and bridged nodes, both backends and families."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.keeping.host import read
from enforcer.kernel.backend import Backend
from enforcer.rules.ruleset import Nflog, Rule
from lab.probe import Outcome, Probe
from lab.topology import OUTSIDE, Attach
from policy.cidr import Family
from tests.enforcer.bridged import FAMILIES, Bridged, bridged, frame, send_frame, udp
from tests.enforcer.shop import API
from tests.enforcer.test_bridged import GATEWAY, SHOP

pytestmark = pytest.mark.kernel

OPEN, REJECTED, DROPPED = Outcome.OPEN, Outcome.REJECTED, Outcome.DROPPED
AUDIT = API + '---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {podfence.io/mode: "MODE"}}}\n'
DENIED = [
    Probe(src, dst, protocol, 80, family)
    for family in FAMILIES
    for src, dst, protocol in [
        ("shop/near", "shop/api", "TCP"),
        ("shop/other", "shop/api", "UDP"),
        (OUTSIDE, "shop/api", "TCP"),
        ("shop/api", "shop/web", "UDP"),
        ("shop/api", OUTSIDE, "TCP"),
        ("shop/api", "n1", "TCP"),
    ]
]


@pytest.fixture(params=[(m, a) for m in ("legacy", "nft") for a in ("routed", "bridge")], ids=lambda p: "-".join(p))
def world(request: pytest.FixtureRequest) -> Iterator[Bridged]:
    mode, attach = request.param
    made: Attach = attach
    with bridged(SHOP, Backend(mode, FAMILIES), made) as found:
        yield found


def told(world: Bridged, family: Family) -> dict[str, int]:
    """Packets told to user space on n1, by prefix."""
    with world.lab.inside("n1"):
        chains = read(world.backend, family).tables.chains
    counted = [c for rules in chains.values() for c in rules if isinstance(c.rule, Rule)]
    return {c.rule.target.prefix: c.packets for c in counted if isinstance(c.rule.target, Nflog)}  # type: ignore[union-attr]


def test_a_node_in_audit_lets_pass_counts_and_tells(world: Bridged) -> None:
    world.options = {"mode": "audit"}
    world.enforce(API)
    assert world.outcomes(*DENIED) == [OPEN] * len(DENIED)
    web, near = world.lab.host("shop/web"), world.lab.host("shop/near")
    lie, target = str(world.lab.host("shop/near").address(4)), str(world.lab.host("shop/other").address(4))
    send_frame(world.lab, "shop/web", frame(GATEWAY, web.mac, udp(lie, target, 80)))
    assert near.mac != web.mac
    for family in FAMILIES:
        found = world.status("n1", family)
        assert found.mode == "audit" and found.denied == ()
        counts = {(audited.pod, audited.direction): audited.packets for audited in found.audited}
        assert counts == {("shop/api", "ingress"): 3, ("shop/api", "egress"): 3}
        # Bridged pods also say hello to routers that are not there.
        assert found.spoofed == (1 if family == 4 else 0)
        prefixes = told(world, family)
        assert prefixes["pf:audit-ingress"] == prefixes["pf:audit-egress"] == 3
        assert prefixes["pf:audit-spoofed"] == found.spoofed
        assert prefixes["pf:denied-ingress"] == prefixes["pf:denied-egress"] == 0


def test_a_namespace_goes_through_all_modes(world: Bridged) -> None:
    """And a node that is off holds nothing, not even for a namespace that says enforce."""
    for mode, passes in (("enforce", False), ("audit", True), ("off", True), ("enforce", False), ("often", False)):
        world.enforce(AUDIT.replace("MODE", mode))
        expected = [OPEN if passes else DROPPED if each.src == OUTSIDE else REJECTED for each in DENIED]
        assert world.outcomes(*DENIED) == expected, mode
    world.options = {"mode": "off"}
    world.enforce(AUDIT.replace("MODE", "enforce"))
    assert world.outcomes(*DENIED) == [OPEN] * len(DENIED)
    for family in FAMILIES:
        with world.lab.inside("n1"):
            actual = read(world.backend, family)
        assert not actual.tables.chains and not actual.sets and not any(map(any, actual.tables.builtin.values()))
        assert world.status("n1", family).mode == "off"
