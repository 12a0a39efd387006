"""Existing flows without a kernel: its answers read, and which flows may not go on."""

from __future__ import annotations

import struct
from random import Random

import pytest

from compiler.compile import Compiled, compile_cluster
from enforcer.connections.revocation import Judge
from enforcer.kernel.conntrack_answer import Refused, Tracked, entries, identity, results
from enforcer.kernel.conntrack_wire import dump_request, mark_requests, packed
from enforcer.readback.simulate import Packet, Simulator
from enforcer.rules.base import DEFAULT_MARK
from enforcer.rules.layout import NodeView, layout, local_pods
from enforcer.rules.parse import Foreign, parse_rule
from enforcer.rules.render import rule_text
from enforcer.rules.ruleset import ConnMark, CtDir, HookName, Return, Rule, State
from enforcer.rules.strangers import mark_writers
from policy.cidr import Address, Family, parse_address, parse_cidr
from policy.decode import decode_objects
from policy.model import Pod
from tests.generate import cluster, flows
from tests.oracle.fields import Object

# What Linux 6.18 answered: an echo, a TCP connection through destination NAT with a mark of 0x55, and the end.
IPV4 = bytes.fromhex(
    "d000000000012200000000007a6b0000020000003c00018014000180080001000af40102080002000af402032400028005000100"
    "010000000600040000070000050005000800000005000600000000003c00028014000180080001000af40203080002000af40102"
    "24000280050001000100000006000400000700000500050000000000050006000000000008000300000000080800080000000000"
    "08000c00af45736a08000b000000000108000700000000631c001880080001000000000008000200000000000800030000000000"
    "f000000000012200000000007a6b0000020000003400018014000180080001000af40102080002000a6000011c00028005000100"
    "06000000060002009c4000000600030001bb00003400028014000180080001000af40203080002000af401021c00028005000100"
    "060000000600020020fb0000060003009c400000080003000000000a080008000000005508000c00118bf66508000b0000000001"
    "0800070000000063300004802c000180050001000300000005000200000000000500030000000000060004000a00000006000500"
    "0a0000001c0018800800010000000000080002000000000008000300000000001400000003000200000000007a6b000000000000"
)
# The same UDP flow twice: in zone 7, and with zone 9 for its first packet's way.
IPV6 = bytes.fromhex(
    "f80000000001220000000000de6d00000a0000004c0001802c00018014000300fd00000000000000000000000000000214000400"
    "fd0000000000000000000000000000031c00028005000100110000000600020014e9000006000300003500004c0002802c000180"
    "14000300fd00000000000000000000000000000314000400fd0000000000000000000000000000021c0002800500010011000000"
    "06000200003500000600030014e900000600120000070000080003000000000a080008000000000008000c00b781323c08000b00"
    "0000000108000700000000631c001880080001000000000008000200000000000800030000000000f80000000001220000000000"
    "de6d00000a000000540001802c00018014000300fd00000000000000000000000000000214000400fd0000000000000000000000"
    "000000031c00028005000100110000000600020014e90000060003000035000006000300000900004c0002802c00018014000300"
    "fd00000000000000000000000000000314000400fd0000000000000000000000000000021c000280050001001100000006000200"
    "003500000600030014e90000080003000000000a080008000000000008000c0072d96ccd08000b00000000010800070000000063"
    "1c001880080001000000000008000200000000000800030000000000140000000300020000000000de6d000000000000"
)
DONE = 20


def read(answer: bytes) -> list[Tracked]:
    """In one piece, and with the end by itself."""
    pieces = iter([answer[:-DONE], answer[-DONE:]])
    found = list(entries(lambda: answer))
    assert [flow[:4] for flow in entries(lambda: next(pieces))] == [flow[:4] for flow in found]
    return found


def test_entries_as_policies_see_them() -> None:
    client, server = (packed(parse_address(text)) for text in ("10.244.1.2", "10.244.2.3"))
    echo, tcp = read(IPV4)
    assert echo[:4] == (client, server, 1, b"\0\0")
    assert tcp[:4] == (client, server, 6, (8443).to_bytes(2, "big")), "the pod and port behind the service"
    client, server = (packed(parse_address(text)) for text in ("fd00::2", "fd00::3"))
    assert [flow[:4] for flow in read(IPV6)] == [(client, server, 17, b"\x00\x35")] * 2


def test_an_entry_is_named_by_its_first_tuple_and_its_zone() -> None:
    _, tcp = read(IPV4)
    assert identity(tcp) == (2, IPV4[208 + 20 : 208 + 20 + 0x34])
    of_zone, of_way = read(IPV6)
    assert identity(of_zone) == (10, IPV6[20 : 20 + 0x4C] + bytes.fromhex("0600120000070000"))
    assert identity(of_way) == (10, IPV6[248 + 20 : 248 + 20 + 0x54])


@pytest.mark.parametrize("kind", [2, 3, 0x777])
def test_an_error_in_the_middle_is_no_end(kind: int) -> None:
    error = struct.pack("=IHHIIi", DONE, kind, 0, 0, 0, -105)
    with pytest.raises(Refused):
        list(entries(lambda: IPV4[:208] + error))


def test_requests_are_numbered_and_only_the_last_is_acknowledged() -> None:
    both = mark_requests([(2, b"1234"), (10, b"12345678")], 0x1000, True)
    heads = []
    while both:
        length, kind, flags, number, _, family = struct.unpack_from("=IHHIIB", both)
        heads.append((kind, flags, number, family))
        assert both[20:length].endswith(bytes.fromhex("0800080000001000 0800150000001000"))
        both = both[length:]
    assert heads == [(0x100, 1, 1, 2), (0x100, 5, 2, 10)]
    told = b"".join(struct.pack("=IHHIIi20x", 40, 2, 0, number, 0, code) for number, code in ((1, -2), (2, 0)))
    assert list(results(told)) == [(1, 2), (2, 0)]


def test_a_request_for_one_source() -> None:
    body = dump_request(0x10, False, 4, ("reply", parse_address("10.0.0.1")))[20:]
    assert body == bytes.fromhex(
        "08000800 00000000 08001500 00000010 10000280 0c000180 08000100 0a000001 0c001980 08000200 01000000"
    )


@pytest.mark.parametrize(
    "rule",
    [
        Rule((State(("ESTABLISHED",)), ConnMark(0x1000, inverted=True)), Return()),
        Rule((ConnMark(0x80000000), CtDir("REPLY")), Return()),
        Rule((CtDir("ORIGINAL"),), Return()),
    ],
)
def test_the_matches_survive_the_round_trip(rule: Rule) -> None:
    assert parse_rule(rule_text(rule)) == rule


@pytest.mark.parametrize("mark", ["0x1000", "0x1000/0x3000", "0x0/0x1000"])
def test_another_question_about_the_mark_is_not_ours(mark: str) -> None:
    for text in (f"-m connmark --mark {mark} -j RETURN", f"-m connmark ! --mark {mark} -j RETURN"):
        assert parse_rule(text) == Foreign(text)


@pytest.mark.parametrize(
    ("written", "caught"),
    [
        ("--set-xmark 0x5/0xffffffff", True),
        ("--set-xmark 0x1000/0x1000", True),
        ("--set-xmark 0x1000/0x0", True),
        ("--set-xmark 0x80/0x80", False),
        ("--set-xmark 0x0/0xf00", False),
        ("--save-mark --nfmask 0xffffffff --ctmask 0xffffffff", True),
        ("--save-mark --nfmask 0xff0000 --ctmask 0xff0000", False),
        ("--restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", False),
    ],
)
def test_rules_that_write_our_bit_are_found(written: str, caught: bool) -> None:
    """As both backends' iptables-save print them."""
    rule = f'-A PREROUTING -m comment --comment "-j CONNMARK" -j CONNMARK {written}'
    assert mark_writers(f"*mangle\n{rule}\nCOMMIT\n", DEFAULT_MARK) == ((rule,) if caught else ())


class Node:
    """One node of a random cluster: the judge of its flows, and its rules."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.objects = cluster(self.rng)
        self.compiled: Compiled = compile_cluster(decode_objects(self.objects).cluster)
        nodes = self.compiled.cluster.nodes
        self.node = self.rng.choice(nodes)
        self.pods = {address: pod for pod in local_pods(self.compiled, self.node.name) for address in pod.addresses}
        veths = {pod.key: _veth(pod) for pod in self.pods.values()}
        egress = self.rng.choice(["enforce", "enforce", "allow"])
        self.view = NodeView(
            self.node.name, veths, self.node.pod_cidrs, node_egress="allow" if egress == "allow" else "enforce"
        )
        self.judge = Judge(self.compiled, self.view, local_pods(self.compiled, self.node.name), self.node.addresses)
        self._simulators: dict[Family, Simulator] = {}

    def flows(self, count: int) -> list[Tracked]:
        """At least one end is here. Few ports, so that flows differ in their ends alone: those are what a judge takes
        for alike."""
        numbers = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1}
        some = flows(self.rng, self.objects, count)
        services = [(each.protocol, each.port) for each in self.rng.sample(some, min(3, len(some)))]
        found = []
        for flow in some:
            src, dst = (parse_address(end.address) for end in (flow.src, flow.dst))
            if src in self.pods or dst in self.pods:
                for protocol, number in services:
                    port = number.to_bytes(2, "big") if protocol != "ICMP" else b"\0\0"
                    found.append(Tracked(packed(src), packed(dst), numbers[protocol], port, b"", 0))
        return found

    def outcome(self, flow: Tracked, **state: object) -> str:
        """What the rules do with the flow's first packet, or one in another state."""
        src, dst = (Address(4 if len(end) == 4 else 6, int.from_bytes(end, "big")) for end in flow[:2])
        if src.family not in self._simulators:
            self._simulators[src.family] = Simulator(layout(self.compiled, self.view, src.family))
        hook: HookName = "INPUT" if dst in self.node.addresses else "FORWARD"
        ways = [_veth(self.pods[end]) if end in self.pods else "eth0" for end in (src, dst)]
        icmp = "icmp" if src.family == 4 else "ipv6-icmp"
        protocol = {6: "tcp", 17: "udp", 132: "sctp"}.get(flow.protocol, icmp)
        port = int.from_bytes(flow.port, "big")
        packet = Packet(src, dst, protocol, port, ways[0], ways[1] if hook == "FORWARD" else "", **state)  # type: ignore[arg-type]
        return self._simulators[src.family].walk(hook, packet).outcome


def _veth(pod: Pod) -> str:
    return f"veth:{pod.key}"


@pytest.mark.parametrize("seed", range(60))
def test_what_may_not_begin_may_not_go_on(seed: int) -> None:
    """Flow by flow, as the rules of the node decide; what the node itself made never ends."""
    node = Node(seed)
    for flow in node.flows(300):
        src = Address(4 if len(flow.src) == 4 else 6, int.from_bytes(flow.src, "big"))
        denied = src not in node.node.addresses and node.outcome(flow) != "accept"
        assert node.judge.forbids(flow) == denied, flow


@pytest.mark.parametrize("seed", range(10))
def test_the_bit_decides_what_becomes_of_a_flow(seed: int) -> None:
    node = Node(seed)
    for flow in node.flows(100):
        first = node.outcome(flow)
        for way in ("ORIGINAL", "REPLY"):
            for mark in (0, ~DEFAULT_MARK & 0xFFFFFFFF):
                assert node.outcome(flow, state="ESTABLISHED", mark=mark, ct_direction=way) == "accept"
        marked = {"state": "ESTABLISHED", "mark": DEFAULT_MARK}
        # What was open is answered, also where the first packet of somebody unheard of is not.
        assert node.outcome(flow, **marked, ct_direction="ORIGINAL") == ("accept" if first == "accept" else "reject")
        assert node.outcome(flow, **marked, ct_direction="REPLY") == "reject"


def test_the_flows_of_a_released_address_end_unless_the_node_made_them() -> None:
    node = Node(0)
    own, stranger, former = node.node.addresses[0], parse_address("203.0.113.9"), parse_address("192.0.2.77")
    judge = Judge(node.compiled, node.view, tuple(node.pods.values()), node.node.addresses, {former})

    def forbids(src: Address, dst: Address) -> bool:
        return judge.forbids(Tracked(packed(src), packed(dst), 6, b"\0\x50", b"", 0))

    assert forbids(stranger, former) and forbids(former, stranger)
    assert not forbids(own, former) and not forbids(stranger, parse_address("192.0.2.78"))


def remote(name: str, address: str, namespace: str = "shop", app: str = "web", port: int = 80) -> Object:
    spec = {"nodeName": "far", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]}
    meta = {"name": name, "namespace": namespace, "labels": {"app": app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": {"podIPs": [{"ip": address}]}}


@pytest.mark.parametrize(
    "other",
    [
        remote("other", "10.0.2.2", namespace="else"),
        remote("other", "10.0.2.2", app="other"),
        remote("other", "10.0.2.2", port=8080),
    ],
    ids=["namespace", "labels", "ports"],
)
def test_pods_that_differ_in_one_thing_are_judged_apart(other: Object) -> None:
    """One asked after the other, so that the second would get the first one's answer."""
    local = remote("local", "10.0.1.1", app="local")
    local["spec"]["nodeName"] = "near"
    peers = [{"podSelector": {"matchLabels": {"app": "web"}}}]
    spec = {
        "podSelector": {"matchLabels": {"app": "local"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": peers, "ports": [{"port": "http"}]}],
    }
    meta = {"name": "p", "namespace": "shop"}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    compiled = compile_cluster(decode_objects([local, remote("one", "10.0.2.1"), other, policy]).cluster)
    judge = Judge(compiled, NodeView("near", {"shop/local": "veth"}), local_pods(compiled, "near"), ())
    both = ("10.0.2.1", "10.0.2.2")
    asked = [Tracked(*map(packed, map(parse_address, ("10.0.1.1", dst))), 6, b"\0\x50", b"", 0) for dst in both]
    assert [judge.forbids(flow) for flow in asked] == [False, True]


def test_an_address_of_the_nodes_own_block_is_judged_apart_from_strangers() -> None:
    view = NodeView("near", {}, (parse_cidr("10.0.1.0/24"),))
    judge = Judge(compile_cluster(decode_objects([]).cluster), view, (), [parse_address("10.0.1.1")])
    ends = [packed(parse_address(text)) for text in ("10.0.0.255", "10.0.1.0", "10.0.1.255", "10.0.2.0", "10.0.1.1")]
    flows = [Tracked(packed(parse_address("192.0.2.1")), end, 6, b"\0\x50", b"", 0) for end in ends]
    assert [judge.forbids(flow) for flow in flows] == [False, True, True, False, False]
