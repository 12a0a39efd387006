"""CIDRs as Kubernetes reads them, against Python's strict parser after leading zeros are taken out (row 35)."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.cidr import Address, Prefix, parse_address, parse_cidr

octets = st.tuples(st.integers(0, 3), st.integers(0, 300)).map(lambda pair: "0" * pair[0] + str(pair[1]))
v4 = st.lists(octets, min_size=3, max_size=5).map(".".join)
v6 = st.ip_addresses(v=6).map(str) | st.ip_addresses(v=4).map(lambda found: f"::ffff:{found}")
cidrs = st.tuples(
    v4 | v6, st.sampled_from(["/", ""]), st.integers(0, 130).map(str) | st.sampled_from(["", "-1", "08", "٣"])
)


def slow(text: str) -> IPv4Network | IPv6Network | None:
    address, slash, length = text.partition("/")
    if not slash or not re.fullmatch("[0-9]+", length):
        return None
    if ":" not in address:
        address = re.sub(r"(?<![0-9])0+(?=[0-9])", "", address)
    try:
        network = ip_network(f"{address}/{int(length)}", strict=False)
    except ValueError:
        return None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


@given(cidrs.map("".join))
def test_sloppy_cidrs(text: str) -> None:
    expected = slow(text)
    if expected is None:
        with pytest.raises(ValueError, match="not a CIDR"):
            parse_cidr(text)
    else:
        family = 4 if expected.version == 4 else 6
        assert parse_cidr(text) == Prefix(family, int(expected.network_address), expected.prefixlen)
        assert parse_cidr(text).last == int(expected.broadcast_address)
        assert parse_cidr(str(parse_cidr(text))) == parse_cidr(text)


@given(st.ip_addresses())
def test_addresses_are_read_back_as_they_are_shown(address: object) -> None:
    assert parse_address(str(parse_address(str(address)))) == parse_address(str(address))


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.0.0", "256.0.0.1", "1.2.3.x", "fe80::1%eth0", ":::", "1" * 10_000]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        parse_address(text)


def test_mapped_addresses_are_those_that_they_map() -> None:
    assert parse_address("::ffff:10.0.0.1") == parse_address("10.0.0.1") == Address(4, 0x0A000001)
    assert parse_address("::ffff:010.0.00.1") == parse_address("10.0.0.1"), "leading zeros in there too"


def test_contains() -> None:
    outer, inner = parse_cidr("10.0.0.0/8"), parse_cidr("10.255.255.0/24")
    assert outer.contains(inner)
    assert outer.contains(outer)
    assert not inner.contains(outer)
    assert not outer.contains(parse_cidr("11.0.0.0/24"))
    assert not parse_cidr("0.0.0.0/0").contains(parse_cidr("::/0"))
