"""A node small enough to try every packet: random policies on three local pods, and all packets that rules can tell
apart, found without the region algebra that they judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from random import Random
from typing import Any

from msgspec.structs import replace

from compiler.compile import Compiled, compile_cluster
from enforcer.readback.simulate import Packet, Simulator
from enforcer.rules.layout import NodeView, layout
from enforcer.rules.modes import MODE_LABEL
from enforcer.rules.plan import plan
from enforcer.rules.ruleset import (
    Dst,
    DstPorts,
    HookName,
    InInterface,
    IpSet,
    OutInterface,
    PortIn,
    PortOut,
    Rule,
    RuleSet,
    Src,
)
from policy.cidr import Address, parse_cidr
from policy.decode import decode_objects
from tests.enforcer.fake import FakeDataplane

NODE = "n1"
BLOCK = parse_cidr("10.1.0.0/28")
APPS = ("web", "api", "db")
PEERS: tuple[dict[str, Any], ...] = (
    *({"podSelector": {"matchLabels": {"app": app}}} for app in APPS),
    {"podSelector": {}},
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/30"]}},
    {"ipBlock": {"cidr": "0.0.0.0/0"}},
)
PORTS: tuple[dict[str, Any], ...] = ({"port": 80}, {"port": "http"}, {"protocol": "UDP"}, {"port": 80, "endPort": 81})


def small_cluster(rng: Random) -> Compiled:
    """Three pods of the node and one elsewhere; one of the three may be on no interface."""
    pods = [_pod(f"p{number}", app, f"10.1.0.{number}", NODE) for number, app in enumerate(APPS, 1)]
    pods.append(_pod("far", rng.choice(APPS), "10.2.0.1", "n2"))
    pods.append(_namespace(rng))
    policies = [_policy(rng, number) for number in range(rng.choice((1, 2, 3)))]
    return compile_cluster(decode_objects([*pods, *policies]).cluster)


def _pod(name: str, app: str, address: str, node: str) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80 if app == "web" else 81}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def _namespace(rng: Random) -> dict[str, Any]:
    mode = rng.choice(("enforce", "audit", "off", "audited", None, None, None, None))
    labels = {} if mode is None else {MODE_LABEL: mode}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}


def _policy(rng: Random, number: int) -> dict[str, Any]:
    def rules(end: str) -> list[dict[str, Any]]:
        return [
            {end: rng.sample(PEERS, rng.choice((0, 1, 2))), "ports": rng.sample(PORTS, rng.choice((0, 1, 2)))}
            for _ in range(rng.choice((0, 1, 1, 2)))
        ]

    spec = {
        "podSelector": rng.choice(({}, {"matchLabels": {"app": rng.choice(APPS)}})),
        "policyTypes": rng.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
        "ingress": rules("from"),
        "egress": rules("to"),
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": "shop"},
        "spec": spec,
    }


def view(rng: Random) -> NodeView:
    veths = {f"shop/p{number}": f"veth{number}" for number in (1, 2, 3) if number < 3 or rng.random() < 0.8}
    node = NodeView(NODE, veths, (BLOCK,) * rng.choice((0, 1)), node_egress=rng.choice(("enforce", "allow")))
    node = somehow(rng, node)
    return replace(node, uplinks=(*node.uplinks, *rng.choice(((), ("eth0",)))))


def somehow(rng: Random, node: NodeView) -> NodeView:
    """The same node, and perhaps some or all pods on a bridge, which may have an uplink; perhaps an interface of which
    nobody knows whose it is; perhaps with addresses of its blocks that other nodes' pods have; in any mode."""
    some = rng.choice((0.0, 0.6, 1.0))
    bridges = {interface: "br0" for interface in node.veths.values() if rng.random() < some}
    uplinks, strangers = node.uplinks, tuple(rng.sample(("new", "newer"), rng.choice((0, 0, 0, 1))))
    if bridges:
        # An uplink of podfence's making is where routes lead: to the bridge itself.
        uplinks = (*uplinks, *rng.choice(((), ("br0",), ("wire",), ("br0", "wire"))))
        bridges |= {name: "br0" for name in (*strangers, "wire") if name in (*uplinks, "new")}
    return replace(
        node,
        uplinks=uplinks,
        bridges=bridges,
        strangers=strangers,
        mode=rng.choice(("enforce", "enforce", "enforce", "audit", "off")),
        unknown=rng.choice(("closed", "closed", "open")),
        abroad=frozenset(
            Address(block.family, block.network + rng.randrange(12))
            for block in node.pod_cidrs
            for _ in range(rng.choice((0, 0, 3)))
        ),
    )


def installed(compiled: Compiled, node: NodeView) -> FakeDataplane:
    dataplane = FakeDataplane(4)
    dataplane.execute(plan(dataplane.read(), layout(compiled, node, 4)))
    return dataplane


def every_packet(rulesets: Iterable[RuleSet]) -> Iterator[tuple[HookName, Packet]]:
    """One of each sort that `rulesets` can tell apart, but for what these leave alone anyway: ICMP types."""
    rules = [rule for ruleset in rulesets for rules in ruleset.chains.values() for rule in rules]
    sets = [ipset for ruleset in rulesets for ipset in ruleset.sets.values()]
    addresses, ports = _addresses(rules, sets), _ports(rules, sets)
    services = [*product(("tcp", "udp"), ports), ("sctp", 0), ("icmp", 0), ("47", 0)]
    ways = _ways(rules, sets)
    places: list[tuple[HookName, tuple[str, str], tuple[str, str]]]
    places = [("FORWARD", a, b) for a in ways for b in ways if not b[1] or (a[1] and a[0] == b[0])]
    places += [("INPUT", a, ("", "")) for a in (*ways, ("lo", ""))]
    connections = [
        {"state": "NEW"},
        {"state": "ESTABLISHED"},
        {"state": "RELATED", "mark": 0x1000},
        {"state": "ESTABLISHED", "mark": 0x1000, "ct_direction": "REPLY"},
        {"state": "INVALID"},
    ]
    # What is not new is told apart by little else, and is tried with one service only.
    for (hook, (came, port_in), (goes, port_out)), src, dst in product(places, addresses, addresses):
        for (protocol, port), connection in [
            *((service, connections[0]) for service in services),
            *((service, connection) for service in (("tcp", 80), ("icmp", 0)) for connection in connections[1:]),
        ]:
            at = {"in_port": port_in, "out_port": port_out}
            yield hook, Packet(src, dst, protocol, port, came, goes, **connection, **at)  # type: ignore[arg-type]


def _ways(rules: Iterable[Rule], sets: Iterable[IpSet]) -> list[tuple[str, str]]:
    """Interfaces and ports, in and out: that rules speak of, and another. Bridges have names that begin so."""
    named = {e.interface for ipset in sets for e in ipset.elements if e.interface}
    matches = [match for rule in rules for match in rule.matches]
    named |= {match.name for match in matches if isinstance(match, InInterface | OutInterface)} - {"lo"}
    ports = sorted({match.name for match in matches if isinstance(match, PortIn | PortOut)})
    found = [(name, "") for name in sorted(named | {"eth0"})]
    found += [(name, port) for name in sorted(named) if name.startswith("br") for port in ports]
    return found


def _addresses(rules: Iterable[Rule], sets: Iterable[IpSet]) -> list[Address]:
    prefixes = {match.prefix for rule in rules for match in rule.matches if isinstance(match, Src | Dst)}
    prefixes |= {element.prefix for ipset in sets for element in ipset.elements}
    edges = {0} | {value for prefix in prefixes for value in (prefix.network, prefix.last + 1)}
    # Of those that lie in the same prefixes one is enough.
    sorts = {
        tuple(prefix.network <= value <= prefix.last for prefix in sorted(prefixes)): value
        for value in sorted(edges)
        if value < 1 << 32
    }
    return [Address(4, value) for value in sorts.values()]


def _ports(rules: Iterable[Rule], sets: Iterable[IpSet]) -> list[int]:
    ranges = {span for rule in rules for match in rule.matches if isinstance(match, DstPorts) for span in match.ranges}
    ranges |= {(element.port, element.port) for ipset in sets for element in ipset.elements if element.protocol}
    return sorted({0} | {port for low, high in ranges for port in (low, high + 1) if port < 1 << 16})


def differing(one: RuleSet, other: RuleSet) -> tuple[HookName, Packet] | None:
    """A packet on which two rule-sets differ, by trying every one."""
    before, after = Simulator(one), Simulator(other)
    for hook, packet in every_packet([one, other]):
        if (before.walk(hook, packet).outcome == "accept") != (after.walk(hook, packet).outcome == "accept"):
            return hook, packet
    return None
