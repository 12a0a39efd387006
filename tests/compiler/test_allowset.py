"""Allow-sets: the canonical form says what the rules say, is one form for one meaning, and keeps its references."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from compiler.allowset import BoundRule, Grant, PolicyRef, RuleRef, allow_set, canonical
from compiler.compile import compile_cluster
from compiler.peers import EVERYONE, NOBODY, PeerSet, PodTerm, peer_set
from compiler.ports import ALL_PORTS, NamedPort, PortSet, port_range, union_of
from compiler.prefixes import AddressSet, addresses_of
from policy.cidr import Address, parse_address, parse_cidr
from policy.decode import decode_objects
from policy.selector import EVERYTHING, in_, namespace_named, selector
from tests.generate import cluster

TERMS = [
    PodTerm(namespace_named(namespace), pods)
    for namespace in ("a", "b")
    for pods in (EVERYTHING, selector([in_("app", "x")]))
]
BLOCKS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "fd00::/16", "fd00:1::/32", "::/0"]
PROBES = [
    parse_address(text) for text in ("10.0.0.1", "10.1.0.1", "10.1.2.3", "192.0.2.1", "fd00:1::1", "fd00::1", "::1")
]
PORTS = [ALL_PORTS, port_range("TCP", 80, 80), port_range("TCP", 1, 1000), port_range("UDP", 53, 53)]
FLOWS = [("TCP", 80), ("TCP", 443), ("TCP", 2000), ("UDP", 53), ("ICMP", 0)]

blocks = st.lists(st.sampled_from(BLOCKS), max_size=2).map(lambda texts: addresses_of(map(parse_cidr, texts)))
peer_sets = st.just(EVERYONE) | st.builds(peer_set, st.lists(st.sampled_from(TERMS), max_size=2), blocks)
port_entries = st.sampled_from([*PORTS, NamedPort("TCP", "http")])


@st.composite
def bound_rules(draw: st.DrawFn) -> list[BoundRule]:
    rules = []
    for number in range(draw(st.integers(0, 5))):
        peers = draw(st.lists(peer_sets, min_size=1, max_size=2))
        ports = draw(st.lists(port_entries, min_size=1, max_size=2))
        ref = RuleRef(f"ns/p{number}", "egress", 0)
        rules.append(BoundRule(PolicyRef(ref.policy), ref, tuple(enumerate(peers)), tuple(enumerate(ports))))
    return rules


def admits(ports: PortSet | NamedPort, peers: PeerSet, who: PodTerm | Address, flow: tuple[str, int]) -> bool:
    inside = who in peers.pods or peers == EVERYONE if isinstance(who, PodTerm) else peers.addresses.contains(who)
    return inside and isinstance(ports, PortSet) and ports.contains(*flow)


def as_written(rules: list[BoundRule], who: PodTerm | Address, flow: tuple[str, int]) -> bool:
    return any(admits(ports, peers, who, flow) for rule in rules for _, peers in rule.peers for _, ports in rule.ports)


def as_granted(grants: tuple[Grant, ...], who: PodTerm | Address, flow: tuple[str, int]) -> bool:
    # What every address has, every pod has, whether a term says so or not.
    everywhere = isinstance(who, PodTerm) and all(as_granted(grants, probe, flow) for probe in PROBES)
    return everywhere or any(admits(grant.ports, grant.peers, who, flow) for grant in grants)


@given(bound_rules())
def test_grants_say_what_the_rules_say(rules: list[BoundRule]) -> None:
    grants = canonical(rules)
    for flow in FLOWS:
        for address in PROBES:
            assert as_granted(grants, address, flow) == as_written(rules, address, flow)
        everywhere = all(as_written(rules, address, flow) for address in PROBES)
        for term in TERMS:
            assert as_granted(grants, term, flow) == (everywhere or as_written(rules, term, flow))


@given(bound_rules(), st.randoms(use_true_random=False))
def test_one_form_whatever_the_order_or_repetition(rules: list[BoundRule], rng: Random) -> None:
    shuffled = rules + rules[:1]
    rng.shuffle(shuffled)
    assert canonical(shuffled) == canonical(rules)


@given(bound_rules())
def test_each_peer_stands_in_one_grant(rules: list[BoundRule]) -> None:
    numbered = [grant for grant in canonical(rules) if isinstance(grant.ports, PortSet)]
    terms = [term for grant in numbered for term in grant.peers.pods]
    assert len(terms) == len(set(terms))
    for probe in PROBES:
        assert sum(grant.peers.addresses.contains(probe) for grant in numbered) <= 1
    assert len({grant.ports for grant in numbered}) == len(numbered)


@given(bound_rules())
def test_every_contributing_rule_is_named(rules: list[BoundRule]) -> None:
    grants = canonical(rules)
    for rule in rules:
        for address in PROBES:
            for flow in FLOWS:
                if as_written([rule], address, flow):
                    assert any(rule.ref in g.rules for g in grants if admits(g.ports, g.peers, address, flow))


def test_the_number_of_grants_does_not_grow_with_the_policies() -> None:
    term = PeerSet((TERMS[1],))
    rules = [
        BoundRule(PolicyRef(f"a/p{n}"), RuleRef(f"a/p{n}", "ingress", 0), ((0, term),), ((0, PORTS[1]),))
        for n in range(500)
    ]
    (grant,) = canonical(rules)
    assert grant.ports == PORTS[1] and grant.peers == term and len(grant.rules) == 500


def test_no_rules_isolate_and_grant_nothing() -> None:
    found = allow_set([PolicyRef("a/deny")], [])
    assert found.isolated and found.grants == ()


def test_a_rule_whose_named_port_nobody_has_grants_nothing() -> None:
    ref = RuleRef("a/p", "ingress", 0)
    rule = BoundRule(PolicyRef("a/p"), ref, ((None, EVERYONE),), ((0, union_of([])),))
    assert canonical([rule]) == ()
    assert canonical([BoundRule(PolicyRef("a/p"), ref, ((0, NOBODY),), ((None, ALL_PORTS),))]) == ()


def test_replicas_share_one_allow_set() -> None:
    pods = [
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": f"web-{n}", "namespace": "a", "labels": {"app": "web"}},
            "status": {"podIPs": [{"ip": f"10.0.0.{n}"}]},
        }
        for n in (1, 2)
    ]
    policy = {
        "kind": "NetworkPolicy",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "p", "namespace": "a"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]},
    }
    compiled = compile_cluster(decode_objects([*pods, policy]).cluster)
    first, second = (compiled.allow(compiled.pods[f"a/web-{n}"], "ingress") for n in (1, 2))
    assert first is second and first.isolated


@given(st.integers(0, 10_000))
def test_nothing_depends_on_the_order_of_objects(seed: int) -> None:
    objects = cluster(Random(seed))
    one = compile_cluster(decode_objects(objects).cluster)
    other = compile_cluster(decode_objects(objects[::-1]).cluster)
    assert one.pods.keys() == other.pods.keys()
    for key, pod in one.pods.items():
        for direction in ("ingress", "egress"):
            assert one.allow(pod, direction).grants == other.allow(other.pods[key], direction).grants


def test_addresses_of_one_family_do_not_open_the_other() -> None:
    ref = RuleRef("a/p", "ingress", 0)
    whole_v4 = PeerSet((), addresses_of([parse_cidr("0.0.0.0/0")]))
    term = PeerSet((TERMS[0],))
    rules = [
        BoundRule(PolicyRef("a/p"), ref, ((0, whole_v4), (1, term)), ((0, PORTS[1]),)),
    ]
    (grant,) = canonical(rules)
    assert grant.peers.pods == term.pods, "an IPv6 pod is not in 0.0.0.0/0"
    assert grant.peers.addresses == AddressSet(v4=whole_v4.addresses.v4)
