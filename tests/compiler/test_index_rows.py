"""What single events change, case by case; the rows are those of the semantics."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from compiler.changes import Changes, Deleted, Event, MemberChange
from compiler.index import Index
from compiler.peers import Member
from policy.cidr import Address, parse_address, parse_cidr
from policy.model import ContainerPort, IPBlock, Namespace, NetworkPolicy, Peer, Pod, Port, Rule
from policy.selector import EVERYTHING, in_, selector

NOTHING = Changes({}, {}, frozenset())
FIRST, SECOND, SIXTH = map(parse_address, ("10.0.0.1", "10.0.0.2", "fd00::1"))
WEB = Pod("shop", "web", {"app": "web"}, node="n1", addresses=(parse_address("10.0.0.9"),))
CLIENT = Pod("shop", "client", {"app": "client"}, node="n2", addresses=(FIRST,))


def policy(peer: Peer, port: Port | None = None) -> NetworkPolicy:
    """Web may be reached by `peer`, or, where a port is given, may reach it there."""
    subjects = selector([in_("app", "web")])
    rule = Rule((peer,), (port,) if port else ())
    if port:
        return NetworkPolicy("shop", "policy", subjects, ("egress",), egress=(rule,))
    return NetworkPolicy("shop", "policy", subjects, ("ingress",), ingress=(rule,))


CLIENTS = policy(Peer(pods=selector([in_("app", "client")])))
SHOPS = policy(Peer(namespaces=selector([in_("kind", "shop")])))
NAMED = policy(Peer(pods=selector([in_("app", "client")])), Port("TCP", "http"))


class Followed:
    """An index of node n1 with one policy in force, whose only source is watched."""

    def __init__(self, *events: Event) -> None:
        self.index = Index("n1")
        changes = self.index.apply([WEB, *events])
        ((self.source, self.first),) = changes.members.items()

    def apply(self, *events: Event) -> tuple[set[Member], set[Member]]:
        """Who joined and who left; nothing else may change."""
        changes = self.index.apply(events)
        assert not changes.subjects and not changes.released
        moved = changes.members.get(self.source, MemberChange(frozenset(), frozenset()))
        assert len(changes.members) == bool(moved.joined or moved.left)
        return set(moved.joined), set(moved.left)


def plain(*addresses: Address) -> set[Member]:
    return {(address, None, 0) for address in addresses}


def test_a_source_in_use_starts_with_its_members_and_is_released_with_the_last_that_uses_it() -> None:
    index = Index("n1")
    assert index.apply([CLIENT, CLIENTS]) == NOTHING
    changes = index.apply([WEB])
    ((source, found),) = changes.members.items()
    assert found == MemberChange(frozenset(plain(FIRST)), frozenset())
    assert {key: change.old for key, change in changes.subjects.items()} == {
        ("shop/web", "ingress"): None,
        ("shop/web", "egress"): None,
    }
    replica = replace(WEB, name="web-2", addresses=(SECOND,))
    assert not index.apply([replica]).members
    assert not index.apply([Deleted("Pod", "shop", "web")]).released
    assert index.apply([Deleted("Pod", "shop", "web-2")]).released == {source}


def test_a_relabel_that_changes_nothing_changes_nothing_and_loses_nobody() -> None:
    world = Followed(CLIENT, CLIENTS)
    assert world.apply(replace(CLIENT, labels={"app": "client", "revision": "2"})) == (set(), set())
    assert world.apply(replace(CLIENT, labels={"app": "other"})) == (set(), plain(FIRST))
    assert world.apply(CLIENT) == (plain(FIRST), set())


def test_row_24_a_pod_that_is_done_leaves_and_its_address_may_be_anothers_by_then() -> None:
    world = Followed(CLIENT, CLIENTS)
    heir = replace(CLIENT, name="heir")
    assert world.apply(heir) == (set(), plain(FIRST)), "nobody can say whose packets they are"
    assert world.apply(replace(CLIENT, phase="Succeeded")) == (plain(FIRST), set())
    assert world.apply(replace(heir, labels={"app": "other"})) == (set(), plain(FIRST))


def test_an_address_that_two_pods_claim_is_the_ones_that_stays() -> None:
    """The heir must not have what its predecessor's labels allow, nor the other way round."""
    world = Followed(CLIENT, CLIENTS)
    leaving = replace(CLIENT, deleting=True)
    heir = replace(CLIENT, name="heir", labels={"app": "other"})
    assert world.apply(leaving) == (set(), set())
    assert world.apply(heir) == (set(), plain(FIRST))
    assert world.apply(replace(heir, labels={"app": "client"})) == (plain(FIRST), set())
    assert world.apply(Deleted("Pod", "shop", "client")) == (set(), set())
    assert world.apply(Deleted("Pod", "shop", "heir")) == (set(), plain(FIRST))


def test_a_pod_that_comes_back_is_looked_at_anew() -> None:
    world = Followed(CLIENT, CLIENTS)
    assert world.apply(Deleted("Pod", "shop", "client")) == (set(), plain(FIRST))
    world.source = next(iter(world.index.apply([SHOPS]).members))
    world.index.apply([Namespace("shop", {"kind": "shop", "kubernetes.io/metadata.name": "shop"})])
    assert world.apply(CLIENT) == (plain(FIRST), set())


def test_row_23_a_pod_in_its_nodes_network_is_no_peer() -> None:
    world = Followed(CLIENT, CLIENTS)
    assert world.apply(replace(CLIENT, host_network=True)) == (set(), plain(FIRST))


def test_row_25_a_pod_that_is_being_deleted_is_still_one() -> None:
    world = Followed(CLIENT, CLIENTS)
    assert world.apply(replace(CLIENT, deleting=True)) == (set(), set())


def test_row_26_every_address_counts_and_those_that_change() -> None:
    world = Followed(CLIENT, CLIENTS)
    assert world.apply(replace(CLIENT, addresses=(FIRST, SIXTH))) == (plain(SIXTH), set())
    assert world.apply(replace(CLIENT, addresses=(SIXTH, SECOND))) == (plain(SECOND), plain(FIRST))
    assert world.apply(replace(CLIENT, addresses=())) == (set(), plain(SIXTH, SECOND))


def test_row_20_a_named_port_is_each_pods_own_and_may_change() -> None:
    def serving(*ports: int) -> Pod:
        return replace(CLIENT, ports=tuple(ContainerPort("http", "TCP", port) for port in ports))

    world = Followed(serving(8080), NAMED)
    assert world.first.joined == {(FIRST, "TCP", 8080)}
    assert world.apply(replace(serving(9090), name="other", addresses=(SECOND,))) == ({(SECOND, "TCP", 9090)}, set())
    assert world.apply(serving(8080, 8081)) == ({(FIRST, "TCP", 8081)}, set())
    assert world.apply(serving()) == (set(), {(FIRST, "TCP", 8080), (FIRST, "TCP", 8081)})
    assert world.apply(replace(CLIENT, ports=(ContainerPort("http", "UDP", 80),))) == (set(), set())


def test_row_20_a_named_port_in_a_block_finds_the_pods_by_their_addresses() -> None:
    serving = replace(CLIENT, labels={}, ports=(ContainerPort("http", "TCP", 80),))
    world = Followed(serving, policy(Peer(block=IPBlock(parse_cidr("10.0.0.0/31"))), Port("TCP", "http")))
    assert world.first.joined == {(FIRST, "TCP", 80)}
    assert world.apply(replace(serving, addresses=(SECOND,))) == (set(), {(FIRST, "TCP", 80)})
    assert world.apply(serving) == ({(FIRST, "TCP", 80)}, set())


def test_a_namespace_takes_its_pods_along() -> None:
    world = Followed(CLIENT, SHOPS, Namespace("shop", {"kind": "shop", "kubernetes.io/metadata.name": "shop"}))
    guest = replace(CLIENT, namespace="guests", addresses=(SECOND,))
    assert world.apply(guest) == (set(), set())
    guests = Namespace("guests", {"kind": "shop", "kubernetes.io/metadata.name": "guests"})
    assert world.apply(guests) == (plain(SECOND), set())
    assert world.apply(replace(guests, labels={**guests.labels, "seen": "yes"})) == (set(), set())
    assert world.apply(Deleted("Namespace", "", "guests")) == (set(), plain(SECOND))


def test_row_36_a_namespace_has_its_name_whether_it_is_there_or_not() -> None:
    world = Followed(CLIENT, policy(Peer(namespaces=selector([in_("kubernetes.io/metadata.name", "shop")]))))
    assert world.first.joined == plain(FIRST, *WEB.addresses)
    assert world.apply(Namespace("shop", {"kubernetes.io/metadata.name": "shop"})) == (set(), set())


@pytest.mark.parametrize("gone", [replace(WEB, addresses=()), replace(WEB, phase="Failed"), replace(WEB, node="n2")])
def test_a_pod_without_address_done_or_elsewhere_is_no_subject(gone: Pod) -> None:
    index = Index("n1")
    index.apply([WEB, CLIENT, CLIENTS])
    changes = index.apply([gone])
    assert {change.new for change in changes.subjects.values()} == {None}
    assert changes.released and not changes.members


def test_a_policy_changes_only_those_that_it_selects() -> None:
    index = Index()
    index.apply([WEB, CLIENT])
    added = index.apply([CLIENTS])
    assert set(added.subjects) == {("shop/web", "ingress")}
    assert index.apply([replace(CLIENTS)]) == NOTHING
    (source,) = added.members
    edited = index.apply([replace(CLIENTS, ingress=(Rule((Peer(pods=EVERYTHING),)),))])
    assert set(edited.subjects) == {("shop/web", "ingress")}
    assert edited.released == {source} and len(edited.members) == 1
