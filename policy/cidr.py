"""Addresses and CIDRs as Kubernetes reads them: the sloppy parser that the API server uses for what it stores.

Go's `netutils.ParseCIDRSloppy` takes leading zeros (decimal, never octal), keeps host bits, which membership then
ignores, and treats an IPv4-mapped IPv6 block of at least 96 bits as the IPv4 block (semantics, row 35).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

from msgspec import Struct

Family = Literal[4, 6]
BITS: dict[Family, int] = {4: 32, 6: 128}
_MAPPED = 0xFFFF << 32
_LONGEST_V4 = 1000
_OCTETS = {str(value): value for value in range(256)}


class Address(Struct, frozen=True, order=True, gc=False):
    """One IP address: its family and its value as a number."""

    family: Family
    value: int

    def __str__(self) -> str:
        return str(IPv4Address(self.value) if self.family == 4 else IPv6Address(self.value))


class Prefix(Struct, frozen=True, order=True, gc=False):
    """A block of addresses; `network` has no bits set beyond `length`."""

    family: Family
    network: int
    length: int

    @property
    def last(self) -> int:
        return self.network | ((1 << (BITS[self.family] - self.length)) - 1)

    def contains(self, other: Prefix) -> bool:
        return self.family == other.family and self.network <= other.network and other.last <= self.last

    def holds(self, address: Address) -> bool:
        return self.family == address.family and self.network <= address.value <= self.last

    def __str__(self) -> str:
        return f"{Address(self.family, self.network)}/{self.length}"


@lru_cache(maxsize=1 << 12)
def parse_address(text: str) -> Address:
    """`text` as an address; IPv4-mapped IPv6 is IPv4. ValueError where it is none."""
    if ":" not in text:
        return Address(4, _sloppy_v4(text))
    if "%" in text:
        raise ValueError(f"not an IP address: {text!r}")
    head, _, tail = text.rpartition(":")
    try:
        # The sloppiness reaches the embedded address too.
        plain = f"{head}:{IPv4Address(_sloppy_v4(tail))}" if "." in tail else text
        value = int(IPv6Address(plain))
    except AddressValueError:
        raise ValueError(f"not an IP address: {text!r}") from None
    return Address(4, value & 0xFFFFFFFF) if value >> 32 == _MAPPED >> 32 else Address(6, value)


def parse_pod_address(text: str) -> Address:
    """`text` as an address that a pod can have; the unspecified one is none, and no set of the kernel takes it."""
    found = parse_address(text)
    if not found.value:
        raise ValueError(f"not an address that a pod can have: {text!r}")
    return found


def _sloppy_v4(text: str) -> int:
    octets = text.split(".")
    try:
        # As nearly all are written.
        first, second, third, fourth = octets
        return _OCTETS[first] << 24 | _OCTETS[second] << 16 | _OCTETS[third] << 8 | _OCTETS[fourth]
    except (KeyError, ValueError):
        pass
    # Digits only, since int() takes signs, spaces and underscores too, and not more than int() reads.
    if len(octets) == 4 and all(octets) and text.isascii() and "".join(octets).isdigit() and len(text) < _LONGEST_V4:
        a, b, c, d = map(int, octets)
        if a < 256 and b < 256 and c < 256 and d < 256:
            return a << 24 | b << 16 | c << 8 | d
    raise ValueError(f"not an IP address: {text!r}")


def parse_cidr(text: str) -> Prefix:
    """`text` as a block, masked to its network. ValueError where Kubernetes would refuse to store it."""
    address_text, slash, length_text = text.partition("/")
    bits = 128 if ":" in address_text else 32
    try:
        address = parse_address(address_text)
    except ValueError:
        raise ValueError(f"not a CIDR: {text!r}") from None
    digits = length_text.isascii() and length_text.isdigit() and len(length_text.lstrip("0")) <= 3
    if not (slash and digits and int(length_text) <= bits):
        raise ValueError(f"not a CIDR: {text!r}")
    length = int(length_text)
    if bits == 128 and address.family == 4:
        if length < 96:
            return _masked(6, _MAPPED | address.value, length)
        length -= 96
    return _masked(address.family, address.value, length)


def _masked(family: Family, value: int, length: int) -> Prefix:
    host_bits = BITS[family] - length
    return Prefix(family, value >> host_bits << host_bits, length)
