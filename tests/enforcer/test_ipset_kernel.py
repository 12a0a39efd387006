"""Sets over netlink on a real kernel, with the ipset program as the judge of what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from enforcer.keeping.host import execute, read
from enforcer.kernel.backend import Backend
from enforcer.kernel.ipset import Sets
from enforcer.rules.plan import Actual, plan, remove_everything
from enforcer.rules.render import create_text, element_text
from enforcer.rules.ruleset import Count, Drop, Element, InSet, IpSet, Rule, RuleSet, SetType
from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Transaction
from lab import netns
from policy.cidr import BITS, Family, Prefix, parse_cidr
from policy.errors import HostRefused, KernelRejected

pytestmark = pytest.mark.kernel
TYPES: tuple[SetType, ...] = ("hash:ip", "hash:net", "hash:ip,port", "hash:net,port", "hash:net,iface")
FAMILIES: tuple[Family, Family] = (4, 6)
_numbers = count()


@pytest.fixture
def sets() -> Iterator[Sets]:
    """The thread is in a namespace of its own, which holds no sets yet."""
    name = f"sets-{os.getpid()}-{next(_numbers)}"
    netns.create([name])
    try:
        with netns.inside(name), Sets() as opened:
            yield opened
    finally:
        netns.delete([name])


def tool(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), argv
    return done.stdout


def saved(name: str) -> list[str]:
    """The elements that the ipset program sees, as we write them: it shows ::0.0.0.1 where we show ::0:1."""
    lines = [line.split(" ") for line in tool("ipset", "save", name).splitlines()]
    added = [(name, element, rest) for verb, name, element, *rest in lines if verb == "add"]
    return sorted(" ".join(["add", name, _ours(element), *rest]) for name, element, rest in added)


def _ours(element: str) -> str:
    address = re.match(r"[0-9a-f.:]+", element)
    assert address
    return str(ip_address(address[0])) + element[address.end() :]


def hosts(number: int, family: Family = 4) -> list[Element]:
    first = parse_cidr("10.0.0.0/32" if family == 4 else "fd00::/128")
    return [Element(replace(first, network=first.network + n)) for n in range(number)]


def prefix(family: Family, value: int, length: int) -> Prefix:
    host_bits = BITS[family] - length
    return Prefix(family, value >> host_bits << host_bits, length)


def elements(kind: SetType, family: Family) -> st.SearchStrategy[frozenset[Element]]:
    bits = BITS[family]
    lengths = {"hash:net": st.integers(1, bits), "hash:net,port": st.integers(1, bits)}.get(kind, st.just(bits))
    lengths = st.integers(0, bits) if kind == "hash:net,iface" else lengths
    # The kernel takes no address that is all zero into a hash:ip.
    addresses = st.integers(1, (1 << bits) - 1)
    names = st.text("abcdefghijklmnopqrstuvwxyz0123456789._", min_size=1, max_size=15)
    return st.frozensets(
        st.builds(
            Element,
            st.builds(prefix, st.just(family), addresses, lengths),
            st.sampled_from(["tcp", "udp", "sctp"]) if kind.endswith(",port") else st.just(""),
            st.integers(0, 65535) if kind.endswith(",port") else st.just(0),
            names if kind.endswith(",iface") else st.just(""),
            st.booleans() if kind.startswith("hash:net") else st.just(False),
        ),
        max_size=40,
    ).map(lambda found: frozenset({replace(each, nomatch=False): each for each in found}.values()))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", TYPES)
def test_ours_and_ipsets_sets_are_the_same(sets: Sets, kind: SetType, family: Family) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(elements(kind, family), st.booleans())
    def same(chosen: frozenset[Element], counters: bool) -> None:
        ipset = IpSet(f"pf-{family}-{next(_numbers)}", kind, chosen, counters)
        text = create_text(ipset, family).splitlines()
        sets.make(ipset, family)
        assert [line.partition(" packets ")[0] for line in saved(ipset.name)] == sorted(text[1:])
        assert tool("ipset", "save", ipset.name).splitlines()[0] == text[0]
        assert sets.read(family)[ipset.name].ipset == ipset
        sets.change(ipset.name, [], chosen)
        assert saved(ipset.name) == []
        sets.destroy(ipset.name)
        tool("ipset", "restore", stdin="\n".join([*text, ""]))
        assert sets.read(family)[ipset.name].ipset == ipset
        sets.destroy(ipset.name)

    same()


@pytest.mark.parametrize("family", FAMILIES)
def test_prefixes_of_every_length(sets: Sets, family: Family) -> None:
    bits = BITS[family]
    every = [Element(Prefix(family, 1 << bits - length, length), nomatch=length % 2 == 1) for length in range(1, bits)]
    ipset = IpSet(f"pf-{family}-x", "hash:net", frozenset([*every, Element(Prefix(family, 1, bits))]))
    sets.make(ipset, family)
    assert saved(ipset.name) == sorted(f"add {ipset.name} {element_text(each)}" for each in ipset.elements)
    assert sets.read(family)[ipset.name].ipset == ipset


@pytest.mark.parametrize("family", FAMILIES)
def test_counters_are_read(sets: Sets, family: Family) -> None:
    name = f"pf-{family}-x"
    sets.make(IpSet(name, "hash:ip", frozenset(), counters=True), family)
    counted = {element: 5 << 33 | number for number, element in enumerate(hosts(3, family))}
    for element, packets in counted.items():
        tool("ipset", "add", name, element_text(element), "packets", str(packets), "bytes", "7")
    assert sets.read(family)[name].counts == counted


def test_a_set_of_many_messages_and_a_dump_of_many(sets: Sets) -> None:
    """Others' sets, and those of the other family, are passed over."""
    large = {family: IpSet(f"pf-{family}-x", "hash:ip", frozenset(hosts(20_000, family))) for family in FAMILIES}
    tool("ipset", "create", "others", "list:set")
    for family, ipset in large.items():
        sets.make(ipset, family)
        sets.make(replace(ipset, name=f"others-{family}"), family)
    for family, ipset in large.items():
        (found,) = sets.read(family).values()
        assert found.ipset == ipset and found.maxelem >= 2 * 20_000
    assert saved("pf-6-x") == sorted(f"add pf-6-x {element_text(each)}" for each in large[6].elements)


@pytest.mark.slow
def test_a_million_elements(sets: Sets) -> None:
    ipset = IpSet("pf-4-x", "hash:ip", frozenset(hosts(1_000_000)))
    sets.make(ipset, 4)
    assert sets.read(4)[ipset.name].ipset == ipset


def test_swapped_sets_exchange_what_they_hold(sets: Sets) -> None:
    one, other = hosts(2)
    sets.make(IpSet("pf-4-a", "hash:ip", frozenset([one])), 4)
    sets.make(IpSet("pf-4-b", "hash:ip", frozenset([other])), 4)
    sets.swap("pf-4-a", "pf-4-b")
    assert {name: set(found.ipset.elements) for name, found in sets.read(4).items()} == {
        "pf-4-a": {other},
        "pf-4-b": {one},
    }
    with pytest.raises(KernelRejected, match=r"there is no set of the second name: 'swap pf-4-a pf-4-c'"):
        sets.swap("pf-4-a", "pf-4-c")


V6 = Element(parse_cidr("fd00::/128"))
REFUSALS: list[tuple[str, Callable[[Sets], object], str]] = [
    ("a set there already", lambda s: s.make(IpSet("pf-4-x", "hash:ip", frozenset()), 4), "create pf-4-x hash:ip"),
    ("an element twice", lambda s: s.change("pf-4-x", [*hosts(2500)[5:], hosts(1)[0]], []), "holds it already: 'add"),
    ("another family", lambda s: s.change("pf-4-x", [*hosts(2500)[5:], V6], []), "cannot hold it: 'add pf-4-x fd00::'"),
    ("gone already", lambda s: s.change("pf-4-x", [], hosts(6)), "does not hold it: 'del pf-4-x 10.0.0.5'"),
    ("no such set", lambda s: s.change("pf-4-y", hosts(1), []), "no set of that name: 'add pf-4-y"),
    ("nothing to destroy", lambda s: s.destroy("pf-4-y"), "no set of that name: 'destroy pf-4-y'"),
    ("full", lambda s: s.change("small", hosts(9), []), "the set is full: 'add small 10.0.0.4'"),
    ("another type", lambda s: s.swap("pf-4-x", "ports"), "different types: 'swap pf-4-x ports'"),
    ("no port", lambda s: s.change("ports", hosts(1), []), "'add ports 10.0.0.0'"),
]


AT_FAULT = {"cannot hold it": "fd00::", "add ports": "10.0.0.0"}


@pytest.mark.parametrize(("refused", "says"), [each[1:] for each in REFUSALS], ids=[each[0] for each in REFUSALS])
def test_a_refusal_names_the_element(sets: Sets, refused: Callable[[Sets], object], says: str) -> None:
    sets.make(IpSet("pf-4-x", "hash:ip", frozenset(hosts(5))), 4)
    tool("ipset", "create", "small", "hash:ip", "maxelem", "4")
    tool("ipset", "create", "ports", "hash:ip,port")
    with pytest.raises(KernelRejected) as raised:
        refused(sets)
    assert says in str(raised.value) and "\n" not in str(raised.value)
    # Of the others it is not the element that is at fault, or not for ever.
    assert raised.value.element == next((e for text, e in AT_FAULT.items() if text in says), "")
    # The socket is good for more.
    assert "pf-4-x" in sets.read(4)


def test_what_came_before_a_refused_element_is_done(sets: Sets) -> None:
    sets.make(IpSet("pf-4-x", "hash:ip", frozenset()), 4)
    with pytest.raises(KernelRejected, match=r"add pf-4-x 10\.0\.0\.0"):
        sets.change("pf-4-x", [*hosts(2500), *hosts(1)], [])
    assert sets.read(4)["pf-4-x"].ipset.elements == frozenset(hosts(2500))


@pytest.mark.parametrize("mode", ["legacy", "nft"])
def test_a_set_that_a_rule_looks_in_stays_until_it_is_let_go(sets: Sets, mode: str) -> None:
    iptables = f"iptables-{mode}"
    sets.make(IpSet("pf-4-x", "hash:ip", frozenset(hosts(1))), 4)
    rule = ["FORWARD", "-m", "set", "--match-set", "pf-4-x", "src", "-j", "DROP"]
    tool(iptables, "-A", *rule)
    waited: list[float] = []
    with Sets(sleep=waited.append) as impatient, pytest.raises(KernelRejected, match="in use: 'destroy pf-4-x'"):
        impatient.destroy("pf-4-x")
    assert 0.5 < sum(waited) < 2
    for _ in range(20):
        # The nft backend lets go of a rule's sets some time after its transaction.
        tool(iptables, "-D", *rule)
        sets.destroy("pf-4-x")
        sets.make(IpSet("pf-4-x", "hash:ip", frozenset(hosts(1))), 4)
        tool(iptables, "-A", *rule)


STRANGE = [
    "create pf-4-x list:set\n",
    "create pf-4-x hash:ip timeout 60\n",
    "create pf-4-x hash:ip netmask 24\n",
    "create pf-4-x hash:ip comment\n",
    "create pf-4-x hash:ip forceadd\n",
    "create pf-4-x hash:ip skbinfo\n",
    "create pf-4-x hash:ip family inet6\n",
    "create pf-4-x bitmap:port range 0-100\nadd pf-4-x 80\n",
    "create pf-4-x hash:net,iface\nadd pf-4-x 10.0.0.0/8,physdev:eth0\n",
    "create pf-4-x hash:ip,port\nadd pf-4-x 10.0.0.1,icmp:echo-request\n",
]


@pytest.mark.parametrize("text", STRANGE)
def test_what_podfence_never_makes_is_replaced(sets: Sets, text: str) -> None:
    tool("ipset", "restore", stdin=text.replace("pf-4-x", "pf-4-x-g0"))
    found = sets.read(4)
    assert found["pf-4-x-g0"].ipset.type not in TYPES
    wanted = RuleSet(4, {}, {}, {"pf-4-x": IpSet("pf-4-x", "hash:ip", frozenset(hosts(1)))})
    backend = Backend("nft", (4,))
    execute(backend, plan(read(backend, 4), wanted))
    assert {name: each.ipset.elements for name, each in sets.read(4).items()} == {"pf-4-x-g1": frozenset(hosts(1))}


def test_what_ipset_makes_of_its_own_accord_is_ours(sets: Sets) -> None:
    """The newest revision of a type, with all that it says about its hash."""
    tool("ipset", "create", "pf-4-x", "hash:net", "counters", "bucketsize", "8", "initval", "0x1234")
    tool("ipset", "add", "pf-4-x", "10.0.0.0/8")
    found = sets.read(4)["pf-4-x"]
    assert found.ipset == IpSet("pf-4-x", "hash:net", frozenset([Element(parse_cidr("10.0.0.0/8"))]), counters=True)
    assert found.maxelem == 65536


WRITER = """
import subprocess, time
churn = [f"{verb} pf-4-x 10.9.{n >> 8}.{n & 255}" for verb in ("add", "del") for n in range(3000)]
churn += ["create pf-4-zz hash:ip", "add pf-4-zz 10.1.1.1", "destroy pf-4-zz"]
churn += ["create a hash:net", "swap a b", "destroy a"]
print("at work", flush=True)
while True:
    # A set that is being read can't be destroyed at that moment; then the next turn does it.
    subprocess.run(["ipset", "-exist", "restore"], input="\\n".join([*churn, ""]), text=True, stderr=subprocess.DEVNULL)
    time.sleep(0.02)
"""


def test_another_writer_at_work(sets: Sets) -> None:
    """It adds to and takes from our set, and makes, swaps and destroys sets. What it does not touch is read right each
    time; what it does is there or not."""
    stays, comes_and_goes = frozenset(hosts(3000)), {f"10.9.{n >> 8}.{n & 255}" for n in range(3000)}
    for name in ("pf-4-a", "pf-4-x", "pf-4-z"):
        sets.make(IpSet(name, "hash:ip", stays), 4)
    tool("ipset", "create", "b", "hash:net")
    writer = subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "at work\n"
        readings, deadline = 0, time.monotonic() + 60
        while readings < 30:
            assert time.monotonic() < deadline and writer.poll() is None
            try:
                found = sets.read(4)
            except HostRefused as refused:
                assert "something changed them" in str(refused)
                continue
            readings += 1
            for name in ("pf-4-a", "pf-4-z"):
                assert found[name].ipset.elements == stays
            more = found["pf-4-x"].ipset.elements
            assert more >= stays and {element_text(each) for each in more - stays} <= comes_and_goes
            assert found.keys() - {"pf-4-zz"} == {"pf-4-a", "pf-4-x", "pf-4-z"}
    finally:
        writer.kill()
        writer.wait()


def test_without_permission_one_line_says_so(sets: Sets) -> None:
    script = "from enforcer.kernel.ipset import Sets\nfrom policy.errors import HostRefused\n"
    script += "try: Sets()\nexcept HostRefused as refused: print(refused)"
    said = tool("setpriv", "--bounding-set=-net_admin", sys.executable, "-c", script)
    assert said == "ipset: not permitted (run it as root, or with CAP_NET_ADMIN)\n"


def test_an_element_that_turned_nomatch_is_repaired(sets: Sets) -> None:
    """To the kernel it is the same element, so that it cannot be added before it is removed."""
    backend = Backend("nft", (4,))
    element = Element(parse_cidr("10.0.0.0/8"))
    rule = Rule((InSet("pf-4-x", ("src",)),), Drop())
    wanted = RuleSet(4, {}, {"PF-x": (rule,)}, {"pf-4-x": IpSet("pf-4-x", "hash:net", frozenset([element]))})
    execute(backend, plan(read(backend, 4), wanted))
    tool("ipset", "del", "pf-4-x-g0", "10.0.0.0/8")
    tool("ipset", "add", "pf-4-x-g0", "10.0.0.0/8", "nomatch")
    execute(backend, plan(read(backend, 4), wanted))
    (found,) = sets.read(4).values()
    assert found.ipset.elements == {element}
    assert plan(read(backend, 4), wanted) == ()


def test_a_set_that_would_overflow_is_grown_by_a_larger_copy(sets: Sets) -> None:
    backend = Backend("nft", (4,))
    rule = Rule((InSet("pf-4-x", ("src",)),), Count())
    few, many = frozenset(hosts(10)), frozenset(hosts(70_000))
    for members, kinds in ((few, [MakeSet, Transaction]), (many, [MakeSet, Transaction, DropSet])):
        wanted = RuleSet(4, {}, {"PF-x": (rule,)}, {"pf-4-x": IpSet("pf-4-x", "hash:ip", members)})
        steps = plan(read(backend, 4), wanted)
        assert [type(step) for step in steps] == kinds
        execute(backend, steps)
    (found,) = sets.read(4).values()
    assert found.ipset.elements == many


def test_a_step_of_each_kind(sets: Sets) -> None:
    backend = Backend("nft", (4,))
    one, other = hosts(2)
    execute(backend, (MakeSet(4, IpSet("pf-4-x", "hash:ip", frozenset([one]))),))
    execute(backend, (ChangeSet("pf-4-x", (other,), (one,)),))
    assert sets.read(4)["pf-4-x"].ipset.elements == {other}
    actual: Actual = read(backend, 4)
    assert remove_everything(actual) == (DropSet("pf-4-x"),)
    execute(backend, remove_everything(actual))
    assert sets.read(4) == {}
