"""Everything that reads bytes which somebody else wrote, with examples to spoil, and what must hold whatever comes.

A target's `check` gets bytes and raises AssertionError where something is wrong; it lets pass the errors that the
reader promises. Anything else that is raised is a find, and so is a reader that takes too long.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import msgspec
import yaml

from benchmarks import api_objects
from compiler.compile import compile_cluster
from enforcer.agent.programmed import is_uid
from enforcer.attachment.cni_cache import AddressKnown, Unreadable, parse
from enforcer.cluster.resources import NAMESPACES, PODS, POLICIES, Resource, own_node
from enforcer.cluster.watch_wire import Lines, NotJson, read_event, read_page, read_status, version_of
from enforcer.connections.remembered import Memory
from enforcer.kernel.conntrack_answer import entries, entries_with, identity, results
from enforcer.kernel.headers import headers
from enforcer.kernel.ipset_answer import Listing, answers
from enforcer.kernel.nflog_wire import codes, logged
from enforcer.kernel.rtnetlink import change, messages
from enforcer.rules.parse import Foreign, parse_rule, parse_tables
from enforcer.rules.render import rule_text
from enforcer.rules.ruleset import Rule
from podfence.agent_config import defaults
from podfence.node_agent import agent, settings_of
from policy.decode import read_documents
from policy.errors import PodfenceError, UnreadableInput
from policy.model import NetworkPolicy
from tests.enforcer.test_cni_cache import packed as cni_result
from tests.enforcer.test_conntrack import IPV4, IPV6
from tests.enforcer.test_ipset import StandIn
from tests.enforcer.test_nflog import SYN, attribute, message, v4, v6
from tests.policy.samples import OBJECTS

# What a kernel's message that makes no sense may end the reading with: the kernel is trusted, and threads that read it
# fail the liveness probe when they end.
NO_SENSE = (struct.error, LookupError, ValueError, OSError, OverflowError)
GOLDEN = Path(__file__).parents[1] / "enforcer/golden"


class Target(NamedTuple):
    name: str
    examples: Callable[[], list[bytes]]
    check: Callable[[bytes], None]


def documents() -> list[bytes]:
    found = [json.dumps(tree).encode() for tree in OBJECTS]
    found += [yaml.safe_dump(tree).encode() for tree in OBJECTS]
    found.append(yaml.safe_dump_all(OBJECTS).encode())
    found.append(json.dumps({"apiVersion": "v1", "kind": "List", "items": OBJECTS}).encode())
    return found


def check_documents(data: bytes) -> None:
    """Objects, or one clean line; what is said fits on a terminal; and whatever was read can be compiled."""
    try:
        decoded = read_documents(data, "f")
    except UnreadableInput as error:
        assert str(error).startswith("f:") and str(error).isprintable()
        return
    assert all(str(problem).isprintable() for problem in decoded.problems)
    compile_cluster(decoded.cluster)


def lines() -> list[bytes]:
    world = api_objects.World(20, 2, 2)
    found = [b'{"type":"ADDED","object":%s}' % api_objects.pod(world, number) for number in range(5)]
    for kind in ("MODIFIED", "DELETED"):
        found += [json.dumps({"type": kind, "object": tree}).encode() for tree in OBJECTS]
    found.append(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}')
    found.append(
        b'{"type":"ERROR","object":{"kind":"Status","code":410,"details":{"retryAfterSeconds":1,"causes":[{}]}}}'
    )
    return found


RESOURCES = (PODS, NAMESPACES, POLICIES, own_node("n1"))


def check_line(data: bytes) -> None:
    for resource in RESOURCES:
        try:
            event = read_event(resource, data)
        except NotJson as error:
            assert "\n" not in str(error)
            continue
        version_of(event.body)
        read_status(event.body)
        if event.type in ("ADDED", "MODIFIED"):
            assert event.news and (event.news.event is not None or event.news.finding)
            _policy_is_not_lost(resource, bytes(event.body), event.news.event)


def _policy_is_not_lost(resource: Resource, body: bytes, event: Any) -> None:
    """A policy whose name and namespace are text isolates somebody, whatever else it holds."""
    if resource is not POLICIES:
        return
    try:
        meta = json.loads(body)["metadata"]
        named = meta["name"], meta["namespace"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return
    if all(isinstance(part, str) and part and part.isascii() for part in named):
        assert isinstance(event, NetworkPolicy), "a policy that can't be read must isolate"
        assert event.isolates


def pages() -> list[bytes]:
    head = {"kind": "PodList", "metadata": {"resourceVersion": "5", "continue": "next"}}
    return [json.dumps({**head, "items": OBJECTS}).encode(), json.dumps({**head, "items": [OBJECTS[2]] * 3}).encode()]


def check_page(data: bytes) -> None:
    for resource in RESOURCES:
        try:
            read_page(resource, data)
        except NotJson as error:
            assert "\n" not in str(error)
    cut = Lines()
    for at in range(0, len(data), 7):
        list(cut.feed(data[at : at + 7]))


def tables() -> list[bytes]:
    found = []
    for file in sorted(GOLDEN.glob("*.txt")):
        text = "\n".join(f"[3:180] {line}" if line.startswith("-A") else line for line in file.read_text().splitlines())
        found.append(text.encode())
        rules = [line for line in text.splitlines() if " -A " in line]
        found += [f":{rule.split()[2]} - [0:0]\n{rule}\n".encode() for rule in rules]
    return found


def check_tables(data: bytes) -> None:
    """As the backends decode it. A rule that is taken for ours is written just as it was read."""
    text = data.decode(errors="backslashreplace")
    try:
        installed = parse_tables(text)
    except (ValueError, IndexError):
        return
    for rules in installed.chains.values():
        for each in rules:
            if isinstance(each.rule, Rule):
                again = parse_rule(rule_text(each.rule))
                assert isinstance(again, Rule) and rule_text(again) == rule_text(each.rule)
            else:
                assert isinstance(each.rule, Foreign)


def sets() -> list[bytes]:
    kernel = StandIn()
    return [b"".join(kernel._dump(1, how)) for how in ("whole", "interrupted", "an element goes")]


def check_sets(data: bytes) -> None:
    for family in (4, 6):
        listing = Listing(family)  # type: ignore[arg-type]
        try:
            for answer in answers(data):
                _ = answer.error, answer.element
                listing.take(answer)
            _ = listing.sets, listing.whole
        except NO_SENSE:
            pass


def packets() -> list[bytes]:
    whole = message(attribute(10, b"pf:denied-egress\0"), attribute(9, v6(0, b"\x2c\0" + bytes(6) + SYN * 3)))
    return [whole, message(attribute(10, b"pf:spoofed\0"), attribute(9, v4(6, SYN))) * 2]


def check_packets(data: bytes) -> None:
    """What pods send is in there: nothing is raised at all."""
    list(logged(data))
    list(codes(data))
    headers(data)
    headers(data[-40:])


def check_flows(data: bytes) -> None:
    for read in (entries, lambda receive: entries_with(receive, {b"\x0a\xf4\x02\x03"})):
        pieces = iter([data])
        try:
            for flow in read(lambda pieces=pieces: next(pieces)):  # type: ignore[misc]
                identity(flow)
        except (StopIteration, RuntimeError, *NO_SENSE):
            pass
    with suppress(*NO_SENSE):
        list(results(data))


def check_links(data: bytes) -> None:
    try:
        for each in messages(data):
            change(each)
    except NO_SENSE:
        pass


def link_messages() -> list[bytes]:
    def attributed(kind: int, value: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

    def whole(kind: int, body: bytes) -> bytes:
        return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body

    number = struct.pack("=I", 7)
    link = struct.pack("=BxHiII", 0, 0, 7, 1, 0) + attributed(3, b"veth1\0") + attributed(18, attributed(1, b"veth\0"))
    route = (
        struct.pack("=BBBBBBBBI", 2, 32, 0, 0, 254, 0, 0, 1, 0) + attributed(1, b"\x0a\0\0\1") + attributed(4, number)
    )
    hops = struct.pack("=HBBi", 8, 0, 0, 7) + struct.pack("=HBBi", 16, 0, 0, 8) + attributed(5, b"\x0a\0\0\1")
    many = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 0, 0, 1, 0)
    many += attributed(1, b"\x0a\0\0\0") + attributed(9, hops)
    seen = struct.pack("=BxxxiHBB", 7, 2, 2, 0, 0) + attributed(2, bytes(6)) + attributed(9, number)
    return [whole(16, link) + whole(24, route), whole(24, many) + whole(28, seen) + whole(3, bytes(4))]


def check_cni(data: bytes) -> None:
    found = parse("file", data)
    assert found is None or isinstance(found, AddressKnown | Unreadable)
    if isinstance(found, AddressKnown):
        assert found.namespace and found.name and found.uid


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="podfence-fuzz-")


def check_memory(data: bytes) -> None:
    """What is not whole is taken for unknown."""
    folder = Path(_folder().name)
    for name in ("owners.json", "spared", "interfaces"):
        (folder / name).write_bytes(data)
    memory = Memory(folder)
    memory.load()
    memory.load_spared()
    memory.load_interfaces()


def memories() -> list[bytes]:
    owners = {"owners": {"10.0.0.1": "uid", "fd00::1": "other"}, "unpurged": ["10.0.0.9"]}
    spared, interfaces = [(2, b"abc"), (10, bytes(40))], {("shop/web", "uid"): 7}
    return [json.dumps(owners).encode(), msgspec.msgpack.encode(spared), msgspec.msgpack.encode(interfaces)]


def check_config(data: bytes) -> None:
    """The file of the agent's options, then the options themselves, as text from anywhere."""
    file = Path(_folder().name) / "agent.yaml"
    file.write_bytes(data)
    try:
        told = defaults(file, agent)
        with agent.make_context("agent", [], default_map={**told}) as ctx:
            settings_of({k: v for k, v in ctx.params.items() if k not in ("log_format", "log_level")})
    except (PodfenceError, click.ClickException) as error:
        shown = str(error) if isinstance(error, PodfenceError) else error.format_message()
        assert shown


def configs() -> list[bytes]:
    return [
        b"node: n1\nmode: audit\nmark: 0x1000\nlog-group: 100\npod-cidr: [10.0.0.0/16, fd00::/48]\nresync: 60\n",
        b"node: n1\nlisten: '[::1]:9470'\ninterface: [shop/web=veth1]\nhost-interface: [docker*]\nhandover: 1e3\n",
        b"node: n1\nfile: [a, b]\nrecursive: true\nstate-dir: /run/podfence\ndeny: drop\nunknown: open\n",
    ]


def uids() -> list[bytes]:
    return [b"7f0c1c1e-3b7e-4d0f-9a54-0123456789ab", b"../../etc/passwd", b"uid-web"]


def check_uid(data: bytes) -> None:
    """A UID names a file: it leads nowhere else."""
    text = data.decode(errors="replace")
    if is_uid(text):
        assert "/" not in text and "\0" not in text and text not in ("", ".", "..") and len(text) < 256


TARGETS = (
    Target("documents: JSON and YAML", documents, check_documents),
    Target("watch: lines", lines, check_line),
    Target("watch: pages", pages, check_page),
    Target("iptables-save", tables, check_tables),
    Target("ipset over netlink", sets, check_sets),
    Target("NFLOG and packets", packets, check_packets),
    Target("connection table", lambda: [IPV4, IPV6], check_flows),
    Target("links and routes", link_messages, check_links),
    Target("CNI results", lambda: [cni_result(), cni_result(address="fd00::1/64")], check_cni),
    Target("state folder", memories, check_memory),
    Target("options", configs, check_config),
    Target("UIDs", uids, check_uid),
)


TOKENS = (
    *(b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\n", b"\0", b"\xff", b"\xed\xa0\x80", b"\x1b[2J"),
    *(b"&a ", b"*a", b"<<: ", b"- ", b"---\n", b"? ", b"!!python/object ", b"null", b"true", b"1e999", b"-1"),
    *(b"9" * 20, b"0.0.0.0/0", b"::/0", b"In", b"$(id)", b"`", b"; -A INPUT -j ACCEPT", b"-j ACCEPT"),
    *(b"\n-A PODFENCE-FORWARD -j RETURN", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"\0\0\0\0", b"\xff\xff\xff\xff"),
    *(b"\4\0\0\0", b"podSelector", b"matchExpressions"),
)


def spoiled(rng: Random, example: bytes, others: list[bytes]) -> bytes:
    """`example` after some of what goes wrong with bytes."""
    data = bytearray(example)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(9):
            case 0 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[rng.randrange(len(data))] = rng.choice((0, 1, 2, 4, 8, 16, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                data[at:at] = rng.choice(TOKENS)
            case 3:
                data[at : at + rng.choice((1, 2, 4, 8, 40))] = b""
            case 4:
                del data[at:]
            case 5:
                end = at + rng.choice((2, 8, 40, 200))
                data[at:at] = data[at:end] * rng.choice((1, 1, 2, 50))
            case 6:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                data[at:at] = other[start : start + rng.choice((4, 16, 80))]
            case 7:
                data[at : at + 4] = rng.choice(TOKENS)
            case _:
                data[at:at] = rng.choice((b"[", b'{"a":', b"- ", b"  ")) * rng.choice((3, 50, 2000))
    return bytes(data)


def inputs(target: Target, rng: Random) -> Iterator[bytes]:
    """The examples as they are, then spoiled ones without end."""
    examples = target.examples()
    yield from examples
    while True:
        yield spoiled(rng, rng.choice(examples), examples)
