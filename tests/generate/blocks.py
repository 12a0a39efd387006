"""Random ipBlocks around given addresses, spelled in all the ways that Kubernetes reads."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random

from tests.oracle.fields import Address, Object

LENGTHS = {
    4: (32, 32, 31, 30, 29, 28, 25, 24, 23, 16, 8, 1, 0, 0),
    6: (128, 128, 127, 126, 125, 120, 112, 64, 63, 48, 7, 1, 0, 0),
}


def block(rng: Random, anchors: list[str]) -> Object:
    """A block that holds one of `anchors`, or is next to it, with up to three exceptions, nested and adjacent."""
    anchor = ip_address(rng.choice(anchors))
    length = rng.choice(LENGTHS[anchor.version])
    base = _near(rng, anchor, length)
    found: Object = {"cidr": _text(rng, base, length)}
    if length < anchor.max_prefixlen and rng.random() < 0.45:
        found["except"] = [_inside(rng, base, length, anchors) for _ in range(rng.choice((1, 1, 2, 3)))]
    return found


def _near(rng: Random, anchor: Address, length: int) -> Address:
    """`anchor`, or the same place in the next block of `length`."""
    step = 1 << (anchor.max_prefixlen - length)
    value = int(anchor) ^ (step if length and rng.random() < 0.15 else 0)
    return type(anchor)(value)


def _inside(rng: Random, base: Address, length: int, anchors: list[str]) -> str:
    """A strictly smaller block within, around another anchor where one is there."""
    width = base.max_prefixlen
    span = 1 << (width - length)
    first = int(base) // span * span
    held = [int(each) for each in map(ip_address, anchors) if each.version == base.version]
    held = [value for value in held if first <= value < first + span]
    value = rng.choice([*held, first, first + span - 1, int(base)])
    smaller = [each for each in LENGTHS[base.version] if each > length] + [length + 1]
    return _text(rng, type(base)(value), rng.choice(smaller))


def _text(rng: Random, address: Address, length: int) -> str:
    """Host bits kept or cleared, and now and then leading zeros, or an IPv4 block spelled as IPv6."""
    span = 1 << (address.max_prefixlen - length)
    kept: IPv4Address | IPv6Address = address
    if rng.random() < 0.6:
        kept = type(address)(int(address) // span * span)
    style = rng.random()
    if isinstance(kept, IPv6Address):
        return f"{kept.exploded if style < 0.1 else kept}/{length}"
    if style < 0.06:
        return f"{'.'.join(octet.rjust(3, '0') for octet in str(kept).split('.'))}/{length}"
    if style < 0.12:
        return f"::ffff:{kept}/{length + 96}"
    return f"{kept}/{length}"
