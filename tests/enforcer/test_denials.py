"""Denials: named, merged, limited, as lines."""

from __future__ import annotations

import io

import msgspec
import pytest

from compiler.compile import compile_cluster
from enforcer.agent.denials import Denial, StateNames, Teller, decoded, encoded, sentence
from enforcer.kernel.headers import Headers
from enforcer.kernel.nflog_wire import Logged
from policy.cidr import Address, parse_address
from policy.decode import read_documents
from policy.model import Direction

FAR, API = parse_address("10.0.2.2"), parse_address("10.0.1.2")
OBJECTS = """
{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}},
  spec: {nodeName: near}, status: {podIPs: [{ip: 10.0.1.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: far, namespace: shop}, spec: {nodeName: far},
  status: {podIPs: [{ip: 10.0.2.2}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b, namespace: shop},
  spec: {podSelector: {}, policyTypes: [Ingress]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop},
  spec: {podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress, Egress]}}
"""


class Told:
    """A teller with clocks that stand still: one that is never set, and the time of day, which may be `set_right`."""

    def __init__(self, **options: float) -> None:
        self.now = 1000.0
        self.set_right = 0.0
        compiled = compile_cluster(read_documents(OBJECTS.encode(), "x.yaml").cluster)
        names = StateNames(compiled, "veth{}".format)
        self.teller = Teller(names, lambda: self.now, lambda: self.now + self.set_right, **options)

    def after(self, seconds: float, *packets: Logged) -> list[Denial]:
        self.now += seconds
        return self.teller.take(packets)


def packet(
    direction: Direction = "ingress", src: Address = FAR, dst: Address = API, port: int = 80, src_port: int = 40000
) -> Logged:
    return Logged("denied", direction, Headers(src, dst, "TCP", src_port, port, "SYN"), 7, 8)


def test_a_denial_names_pods_interfaces_and_the_policies_that_isolate() -> None:
    (denial,) = Told().after(0, packet())
    assert denial == Denial(
        1000.0, "denied", "10.0.2.2", "10.0.1.2", "TCP", "ingress", "shop/far", "shop/api", 40000, 80, "SYN",
        "veth7", "veth8", ("shop/a", "shop/b"),
    )  # fmt: skip
    (out,) = Told().after(0, packet("egress", API, FAR))
    assert out.policies == ("shop/a",) and out.subject == "shop/api"


def test_what_nobody_knows_has_no_name() -> None:
    stranger = parse_address("fd00::9")
    (denial,) = Told().after(0, Logged("spoofed", None, Headers(stranger, stranger, "ICMPv6"), 0, 0, 5))
    assert (denial.src_pod, denial.dst_pod, denial.policies, denial.in_interface) == ("", "", (), "veth5")


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_set_keeps_nothing_from_being_told(hours: int) -> None:
    told = Told(rate=1, burst=2)
    assert len(told.after(0, packet(), packet(port=81))) == 2
    told.set_right = hours * 3600.0
    assert told.after(1, packet()) == []
    (more,) = told.after(4)
    assert (more.count, more.seconds, more.time) == (1, 5.0, 1001.0 + hours * 3600)
    (other,) = told.after(0, packet(port=82))
    assert other.time == 1005.0 + hours * 3600
    assert told.after(0, packet(port=83), packet(port=84))[1:] == [] and told.teller.withheld


def test_repeats_are_counted_and_told_as_one() -> None:
    told = Told()
    assert len(told.after(0, packet())) == 1
    assert told.after(1, *(packet(src_port=40001 + number) for number in range(10))) == []
    assert told.after(3.9, packet()) == []
    (more,) = told.after(0.1)
    assert (more.count, more.seconds, more.time) == (11, 5.0, 1004.9)
    assert told.after(4, packet()) == []
    (again,) = told.after(1)
    assert (again.count, again.seconds) == (1, 5.0)
    assert told.after(5) == [] and len(told.after(0, packet())) == 1, "after a pause it is new"


def test_a_pod_has_so_many_lines_and_another_its_own() -> None:
    told = Told(rate=1, burst=3)
    assert len(told.after(0, *(packet(port=port) for port in range(1, 11)))) == 3
    assert len(told.after(0, packet("egress", FAR, API))) == 1, "another pod"
    assert len(told.after(2, *(packet(port=port) for port in range(11, 21)))) == 2
    assert told.teller.withheld == 7 + 8


@pytest.mark.parametrize("kinds", [5000])
def test_a_flood_of_kinds_and_senders_is_bounded(kinds: int) -> None:
    told = Told()
    packets = [packet("egress", Address(4, number), API, number % 60000) for number in range(kinds)]
    told.after(0, *packets)
    assert len(told.teller._open) <= 1024 and len(told.teller._tokens) <= 1024
    told.after(10)
    assert not told.teller._open


def test_a_line_of_json_is_read_back_and_anything_else_left_out() -> None:
    (denial,) = Told().after(0, packet())
    line = encoded(denial)
    assert line.count(b"\n") == 1 and msgspec.json.decode(line)["src_pod"] == "shop/far"
    assert list(decoded(io.BytesIO(line + b"\n{}\nnonsense\n\xff\n" + line))) == [denial, denial]


def test_a_sentence() -> None:
    (denial,) = Told().after(0, packet())
    assert sentence(denial).partition(" ")[2] == (
        "denied ingress: shop/far (10.0.2.2) -> shop/api (10.0.1.2) TCP 80 SYN (in veth7 out veth8);"
        " isolated by shop/a, shop/b"
    )
    spoofed = Denial(0.0, "spoofed", "10.9.9.9", "10.0.1.2", "ICMP", dst_pod="shop/api", count=17, seconds=5.0)
    assert sentence(spoofed).partition(" ")[2] == "spoofed: 10.9.9.9 -> shop/api (10.0.1.2) ICMP; x17 in 5 s"
