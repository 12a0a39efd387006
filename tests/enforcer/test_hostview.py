"""What changes do to a view: those that are told, and those that the kernel does without a word. And the wire."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from enforcer.attachment.hostview import Tables, leading_further, own_addresses
from enforcer.kernel.rtnetlink import (
    AF_BRIDGE,
    DEL_LINK,
    NEW_LINK,
    NEW_NEIGHBOUR,
    NEW_ROUTE,
    REPLACE,
    Change,
    Fact,
    Forwarding,
    Link,
    Message,
    Neighbour,
    Own,
    Route,
    change,
    messages,
)
from policy.cidr import parse_address, parse_cidr

MAC = b"\x02\0\0\0\0\x01"
VETH, BRIDGE = Link(2, "v1", "veth", 3, 2, 0), Link(3, "cni0", "bridge")
LEAD = Route(parse_cidr("10.0.0.2/32"), 254, (2,))
HOST = parse_address("10.0.0.2")
FACTS: list[Fact] = [
    VETH,
    BRIDGE,
    LEAD,
    Route(parse_cidr("10.0.0.0/24"), 254, (3,)),
    Own(3, parse_address("10.0.0.1"), 24),
    Neighbour(3, HOST, MAC),
    Neighbour(2, HOST, MAC),
    Forwarding(3, MAC, 0, 2),
]


def test_an_interface_takes_everything_with_it() -> None:
    tables = Tables(FACTS)
    tables.apply(Change(BRIDGE, gone=True))
    view = tables.view()
    assert view.routes == {LEAD}
    assert not view.own
    assert not view.fdb
    assert not view.neighbours
    assert tables.stale_links == {3}


def test_an_interface_that_goes_down_loses_its_routes() -> None:
    tables = Tables(FACTS)
    assert tables.apply(Change(Link(2, "v1", "veth", 3, 2, 0, up=False)))
    assert LEAD not in tables.view().routes


def test_whose_other_end_may_have_moved() -> None:
    near, far = Link(5, "near", "veth", peer=6), Link(6, "far", "veth", peer=5)
    for gone in (True, False):
        tables = Tables([near, far])
        tables.apply(Change(far, gone))
        assert tables.stale_links == {5, 6}
    tables.refresh_links([Link(5, "near", "veth", peer=6, peer_netns=0), Link(9, "never-told-of")])
    assert tables.view().links[5].peer_netns == 0
    assert 9 not in tables.view().links
    assert not tables.stale_links


def test_a_neighbour_that_answers_no_more() -> None:
    tables = Tables(FACTS)
    assert not tables.apply(Change(Neighbour(3, HOST, MAC)))
    assert tables.apply(Change(Neighbour(3, HOST, b"")))
    assert not tables.apply(Change(Neighbour(3, HOST, b""), gone=True))


def test_who_is_seen_elsewhere_than_on_a_bridge_is_no_news() -> None:
    tables = Tables(FACTS)
    assert list(tables.view().neighbours) == [(3, HOST)]
    for told in (Neighbour(2, HOST, MAC), Neighbour(2, HOST, b"")):
        assert not tables.apply(Change(told))
    assert not tables.apply(Change(Neighbour(2, HOST, MAC), gone=True))


def test_what_was_said_of_a_link_before_it_was_known_does_not_stay() -> None:
    tables = Tables([Neighbour(2, HOST, MAC), Neighbour(3, HOST, MAC)])
    for link in (VETH, BRIDGE):
        tables.apply(Change(link))
    assert list(tables.view().neighbours) == [(3, HOST)]


def test_a_mac_that_moved_is_not_lost_with_the_old_port() -> None:
    tables = Tables(FACTS)
    tables.apply(Change(Forwarding(3, MAC, 0, 9)))
    assert not tables.apply(Change(Forwarding(3, MAC, 0, 2), gone=True))
    assert tables.view().fdb == {(3, MAC, 0): 9}


@pytest.mark.parametrize(
    ("told", "stale"),
    [
        (Change(Route(parse_cidr("10.0.0.2/32"), 254, (5,)), replaces=True), True),
        (Change(Route(parse_cidr("10.0.0.9/32"), 254, (5,)), gone=True), True),
        (Change(Own(3, parse_address("10.0.0.1"), 24), gone=True), True),
        (Change(LEAD, gone=True), False),
        (Change(Own(3, parse_address("10.0.0.5"), 24)), False),
    ],
)
def test_what_has_to_be_read_anew(told: Change, stale: bool) -> None:
    tables = Tables(FACTS)
    assert tables.apply(told)
    assert tables.stale_routes == stale


def test_a_route_replaces_the_one_at_its_place() -> None:
    tables = Tables(FACTS)
    other = Route(parse_cidr("10.0.0.2/32"), 254, (5,))
    tables.apply(Change(other, replaces=True))
    routes = tables.view().routes
    assert other in routes
    assert LEAD not in routes


def test_views_do_not_change() -> None:
    tables = Tables(FACTS)
    before = tables.view()
    for fact in FACTS:
        tables.apply(Change(fact, gone=True))
    assert before == Tables(FACTS).view()
    assert before != tables.view()


def test_what_leads_further() -> None:
    view = Tables(FACTS).view()
    assert leading_further(view) == {3}
    assert own_addresses(view) == {parse_address("10.0.0.1")}
    assert view.name(2) == "v1"
    assert Tables([Link(2, "v+")]).view().name(2) == ""


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def link_body(family: int, *attributes: bytes) -> bytes:
    return struct.pack("=BxHiII", family, 0, 7, 1, 0) + b"".join(attributes)


def test_wire_link() -> None:
    kind = attribute(18, attribute(1, b"veth\0"))
    body = link_body(0, attribute(3, b"v1\0"), attribute(5, struct.pack("=I", 2)), kind, attribute(37, bytes(4)))
    assert change(Message(NEW_LINK, 0, body)) == Change(Link(7, "v1", "veth", 0, 2, 0))
    assert change(Message(DEL_LINK, 0, link_body(AF_BRIDGE, attribute(3, b"v1\0")))) is None


def test_what_comes_once_is_not_kept() -> None:
    """The kernel tells of a link that changes with all that it has counted; in an answer it leaves that out."""
    name = attribute(3, b"v1\0")
    tracemalloc.start()
    try:
        for number in range(500):
            change(Message(NEW_LINK, 0, link_body(0, name, attribute(23, number.to_bytes(4, "big") + bytes(1200)))))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000
    multipart = 2
    first, again = (change(Message(NEW_LINK, multipart, bytes([*link_body(0, name)]))) for _ in range(2))
    assert first and again and first.fact is again.fact


def test_wire_route() -> None:
    def told(address: str, length: int, flags: int = 0, kind: int = 1) -> Change | None:
        packed = parse_address(address).value.to_bytes(4, "big")
        body = struct.pack("=BBBBBBBBI", 2, length, 0, 0, 254, 0, 0, kind, 0)
        return change(Message(NEW_ROUTE, flags, body + attribute(1, packed) + attribute(4, struct.pack("=I", 7))))

    assert told("10.0.0.2", 32) == Change(Route(parse_cidr("10.0.0.2/32"), 254, (7,)))
    assert told("10.0.0.2", 32, REPLACE) == Change(Route(parse_cidr("10.0.0.2/32"), 254, (7,)), replaces=True)
    assert told("10.0.0.2", 32, kind=6) is None, "a blackhole leads nowhere"
    assert told("169.254.1.1", 32) is None


def test_wire_forwarding() -> None:
    body = struct.pack("=BxxxiHBB", AF_BRIDGE, 2, 2, 0, 0)
    attributes = attribute(2, MAC) + attribute(9, struct.pack("=I", 3)) + attribute(5, struct.pack("=H", 7))
    assert change(Message(NEW_NEIGHBOUR, 0, body + attributes)) == Change(Forwarding(3, MAC, 7, 2))
    own = struct.pack("=BxxxiHBB", AF_BRIDGE, 2, 0x80, 0, 0)
    assert change(Message(NEW_NEIGHBOUR, 0, own + attributes)) is None


def test_wire_refusal() -> None:
    refusal = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -1)
    with pytest.raises(PermissionError):
        list(messages(refusal))
