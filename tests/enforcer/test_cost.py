"""The spread of grants over rules and sets: it says what the grants say, within the bound on lookups."""

from random import Random

import pytest

from compiler.allowset import BoundRule, PolicyRef, RuleRef, canonical
from compiler.peers import PeerSet, PodTerm, peer_set
from compiler.ports import ALL_PORTS, NamedPort, PortSet, port_range
from compiler.prefixes import NO_ADDRESSES, addresses_of
from enforcer.rules.cost import FOLDED, NARROW_RULES, WIDE_RULES, Shape, in_family, shape
from policy.cidr import parse_address, parse_cidr
from policy.model import PROTOCOLS
from policy.selector import EVERYTHING, in_, namespace_named, selector

TERMS = [PodTerm(namespace_named("a"), selector([in_("app", f"v{n}")])) for n in range(40)]
BLOCKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1"]
PROBES = [parse_address(text) for text in ("10.0.0.1", "10.1.0.1", "10.1.2.3", "192.0.2.1", "203.0.113.1")]


def random_rules(rng: Random) -> list[BoundRule]:
    rules = []
    for number in range(rng.choice([1, 3, 8, 60])):
        terms = rng.sample(TERMS, rng.randint(0, 2))
        blocks = addresses_of(map(parse_cidr, rng.sample(BLOCKS, rng.choice([0, 0, 1, 2]))))
        low = rng.randint(1, 60)
        protocol = rng.choice(PROTOCOLS)
        ports: list[PortSet | NamedPort] = [port_range(protocol, low, low + rng.choice([0, 0, 0, 3, 40]))]
        if rng.random() < 0.1:
            ports.append(rng.choice([ALL_PORTS, NamedPort("TCP", "http")]))
        ref = RuleRef(f"a/p{number}", "egress", 0)
        rules.append(BoundRule(PolicyRef(ref.policy), ref, ((0, peer_set(terms, blocks)),), tuple(enumerate(ports))))
    return rules


def allows(groups: list[tuple[PortSet | NamedPort, PeerSet]], who: object, protocol: str, port: int) -> bool:
    for ports, peers in groups:
        inside = who in peers.pods if isinstance(who, PodTerm) else peers.addresses.contains(who)  # type: ignore[arg-type]
        if inside and isinstance(ports, PortSet) and ports.contains(protocol, port):
            return True
    return False


def groups_of(spread: Shape) -> list[tuple[PortSet | NamedPort, PeerSet]]:
    return [*spread.rules, *spread.folded]


def lookups(spread: Shape, protocol: str, port: int) -> int:
    """How many sets a packet meets that nothing admits."""
    asked = [ports for ports, peers in spread.rules if not peers.addresses.is_whole(4)]
    return sum(ports.contains(protocol, port) for ports in asked) + bool(spread.folded)


@pytest.mark.parametrize("seed", range(60))
def test_the_spread_says_what_the_grants_say(seed: int) -> None:
    grants = canonical(random_rules(Random(seed)))
    spread = shape(grants, 4)
    wanted = [(grant.ports, in_family(grant.peers, 4)) for grant in grants]
    for protocol in (*PROTOCOLS, "ICMP"):
        for port in (*range(0, 104, 3), 65535):
            for who in PROBES:
                assert allows(groups_of(spread), who, protocol, port) == allows(wanted, who, protocol, port)
            to_all = all(allows(wanted, who, protocol, port) for who in PROBES)
            for term in TERMS:
                allowed = to_all or allows(wanted, term, protocol, port)
                assert (to_all or allows(groups_of(spread), term, protocol, port)) == allowed
    named = [group for group in groups_of(spread) if isinstance(group[0], NamedPort)]
    assert named == [group for group in wanted if isinstance(group[0], NamedPort)]


@pytest.mark.parametrize("seed", range(60))
def test_the_bound_on_lookups(seed: int) -> None:
    spread = shape(canonical(random_rules(Random(seed))), 4)
    for protocol in (*PROTOCOLS, "ICMP"):
        for port in (*range(104), 65535):
            assert lookups(spread, protocol, port) <= 1 + WIDE_RULES + 1


def one_policy_each(ports: list[PortSet], count: int) -> Shape:
    rules = [
        BoundRule(
            PolicyRef(f"a/p{n}"),
            RuleRef(f"a/p{n}", "ingress", 0),
            ((0, PeerSet((TERMS[n % len(TERMS)],))),),
            ((0, ports[n % len(ports)]),),
        )
        for n in range(count)
    ]
    return shape(canonical(rules), 4)


def test_a_thousand_policies_with_shared_ports_are_a_rule_a_port() -> None:
    spread = one_policy_each([port_range("TCP", 80, 80), port_range("TCP", 443, 443)], 1000)
    assert len(spread.rules) <= NARROW_RULES and not spread.folded


def test_a_thousand_policies_with_a_port_each_are_one_lookup() -> None:
    spread = one_policy_each([port_range("TCP", n, n) for n in range(1, 1001)], 1000)
    assert spread.rules == () and spread.folded


def test_five_thousand_policies_with_a_port_each_are_one_lookup() -> None:
    spread = one_policy_each([port_range("TCP", n, n) for n in range(1, 5001)], 5000)
    assert spread.rules == () and spread.folded


def test_what_a_fold_multiplies_is_bounded() -> None:
    """A set of address and port has an element for each port of each peer: seventeen rules of a hundred ports must not
    put seventeen hundred elements there for each pod."""
    spread = one_policy_each([port_range("TCP", 200 * n, 200 * n + 99) for n in range(17)], 17)
    folded = [ports for ports, _ in spread.folded if isinstance(ports, PortSet)]
    assert sum(ports.count for ports in folded) <= FOLDED
    for port in range(0, 3600, 9):
        assert lookups(spread, "TCP", port) <= 2


def test_a_thousand_policies_with_a_range_each_are_one_lookup_a_packet() -> None:
    spread = one_policy_each([port_range("TCP", 30 * n, 30 * n + 100) for n in range(1, 1001)], 1000)
    assert not spread.folded
    assert max(lookups(spread, "TCP", port) for port in range(0, 31000, 7)) == 1


def test_a_wide_grant_is_not_copied_into_many_narrow_ones() -> None:
    everything = BoundRule(
        PolicyRef("a/all"), RuleRef("a/all", "ingress", 0), ((0, PeerSet((TERMS[0],))),), ((None, ALL_PORTS),)
    )
    narrow = [
        BoundRule(
            PolicyRef(f"a/p{n}"),
            RuleRef(f"a/p{n}", "ingress", 0),
            ((0, PeerSet((TERMS[1 + n % 9],))),),
            ((0, port_range("TCP", n, n)),),
        )
        for n in range(1, 200)
    ]
    spread = shape(canonical([everything, *narrow]), 4)
    assert sum(TERMS[0] in peers.pods for _, peers in groups_of(spread)) == 1


def test_what_everyone_may_reach_takes_no_set() -> None:
    everyone = PeerSet((), addresses_of([parse_cidr("0.0.0.0/0")]))
    dns = BoundRule(
        PolicyRef("a/dns"), RuleRef("a/dns", "egress", 0), ((0, everyone),), ((0, port_range("UDP", 53, 53)),)
    )
    web = BoundRule(
        PolicyRef("a/web"),
        RuleRef("a/web", "egress", 0),
        ((0, PeerSet((), addresses_of([parse_cidr("10.0.0.0/8")]))), (1, PeerSet((PodTerm(EVERYTHING, EVERYTHING),)))),
        ((0, port_range("TCP", 80, 80)),),
    )
    spread = shape(canonical([dns, web]), 4)
    first, second = spread.rules
    assert first == (port_range("UDP", 53, 53), everyone)
    assert second[0] == port_range("TCP", 80, 80) and second[1].addresses != NO_ADDRESSES and second[1].pods
