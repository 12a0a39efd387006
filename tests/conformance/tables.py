"""Truth tables: clusters with the verdicts that are expected of them, in JSON lines.

A line has `name`, `tags`, `objects` and `verdicts`, each `[from, to, protocol, port, ingress allows, egress allows]`
with ends that are pods ("namespace/name") or addresses. Addresses are IPv4; `dual` maps them one to one.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal

from tests.oracle import End, Flow
from tests.oracle.fields import Object, cidr, flat, name_of, namespace, pod_addresses

Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)
# a.b.c.d is fd00::a.b.c.d, and a block keeps what is beyond its length.
_MAPPED = int(IPv6Address("fd00::"))


@dataclass(frozen=True)
class Expected:
    src: str
    dst: str
    protocol: str
    port: int
    ingress: bool
    egress: bool

    @property
    def passes(self) -> bool:
        return self.ingress and self.egress

    def __str__(self) -> str:
        return f"{self.src} -> {self.dst} {self.protocol}/{self.port}"


@dataclass(frozen=True)
class Case:
    name: str
    tags: tuple[str, ...]
    objects: list[Object]
    expected: tuple[Expected, ...]


def read(path: Path) -> Iterator[Case]:
    """The cases of a file, compressed or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            if line.strip():
                row = json.loads(line)
                expected = tuple(Expected(*verdict) for verdict in row["verdicts"])
                yield Case(row["name"], tuple(row.get("tags", ())), row["objects"], expected)


def dual(objects: list[Object]) -> list[Object]:
    """The same cluster in both families at once: pods get the IPv6 address beside their IPv4 one, and a peer that is a
    block one for the mapped block. For flows of one family the other half of it says nothing."""
    mapped = deepcopy(objects)
    for each in flat(mapped):
        if each["kind"] == "Pod":
            texts = [str(address) for address in pod_addresses(each) if address.version == 4]
            each["status"]["podIPs"] = [
                {"ip": text} for own in dict.fromkeys(texts) for text in (own, mapped_address(own))
            ]
        elif each["kind"] == "NetworkPolicy":
            for section, peers in (("ingress", "from"), ("egress", "to")):
                for rule in (each.get("spec") or {}).get(section) or ():
                    if rule.get(peers):
                        rule[peers] = [both for peer in rule[peers] for both in _both(peer)]
    return mapped


def _both(peer: Object) -> list[Object]:
    block = peer.get("ipBlock")
    if not block:
        return [peer]
    other: Object = {"cidr": _mapped_cidr(block["cidr"])}
    if block.get("except"):
        other["except"] = [_mapped_cidr(text) for text in block["except"]]
    return [peer, {"ipBlock": other}]


def mapped_address(text: str) -> str:
    return str(IPv6Address(_MAPPED | int(IPv4Address(text))))


def _mapped_cidr(text: str) -> str:
    block = cidr(text)
    return f"{mapped_address(str(block.network_address))}/{block.prefixlen + 96}"


def flow(case_objects: list[Object], expected: Expected, family: Family) -> Flow:
    return Flow(
        _end(case_objects, expected.src, family),
        _end(case_objects, expected.dst, family),
        expected.protocol,
        expected.port,
    )


def _end(objects: list[Object], text: str, family: Family) -> End:
    for each in flat(objects):
        if each["kind"] == "Pod" and f"{namespace(each)}/{name_of(each)}" == text:
            return End(str(next(a for a in pod_addresses(each) if a.version == family)), text)
    return End(text if family == 4 else mapped_address(text))


def spread(cases: list[Case], count: int) -> list[Case]:
    """At most `count` cases, in their order, chosen so that rare tags come first and each tag comes early."""
    seen: Counter[str] = Counter()
    left = dict(enumerate(cases))
    chosen: list[int] = []
    while left and len(chosen) < count:
        best = max(left, key=lambda at: (sum(1 / (1 + seen[tag]) ** 2 for tag in left[at].tags), -at))
        seen.update(left.pop(best).tags)
        chosen.append(best)
    return [cases[at] for at in sorted(chosen)]


def as_line(case: Case) -> dict[str, Any]:
    """The case as `read` reads it."""
    verdicts = [[e.src, e.dst, e.protocol, e.port, e.ingress, e.egress] for e in case.expected]
    return {"name": case.name, "tags": list(case.tags), "objects": case.objects, "verdicts": verdicts}
