"""ipset's messages without a kernel: pyroute2's own classes read what is written, and a stand-in for the kernel says
what a healthy one seldom says."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.nfnetlink.ipset import ipset_msg

from enforcer.kernel.ipset import Sets
from enforcer.kernel.ipset_answer import ERR_FIND_TYPE, NLM_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, answers
from enforcer.kernel.ipset_wire import (
    A_ADT,
    A_DATA,
    A_FAMILY,
    A_PROTOCOL,
    A_PROTOCOL_MIN,
    A_TYPENAME,
    ELEMENTS_PER_MESSAGE,
    HEAD,
    NESTED,
    NETWORK_ORDER,
    SUBSYSTEM,
    Command,
    attribute,
    elements_body,
    name_attribute,
    request,
)
from enforcer.rules.render import table_size
from enforcer.rules.ruleset import Element, IpSet
from policy.cidr import parse_cidr
from policy.errors import HostRefused

LARGEST = Element(parse_cidr("2001:db8::/127"), interface="fifteen-letters", nomatch=True)


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


class StandIn:
    """Answers as a kernel that speaks protocols from `oldest` to `newest`, refuses each command of `errors`, and holds
    one set, pf-4-x with 10.0.0.1. Its dumps, in turn, do as `dumps` say, the last from then on. A change that it does
    not refuse it leaves without an answer."""

    def __init__(
        self,
        errors: dict[Command, int] | None = None,
        dumps: Sequence[str] = ("whole",),
        oldest: int = 6,
        newest: int = 7,
    ) -> None:
        self.errors, self.dumps, self.oldest, self.newest = errors or {}, list(dumps), oldest, newest
        self.asked: list[tuple[Command, int]] = []
        self.closed = False
        self._answers: list[bytes] = []

    def sendto(self, data: bytes, address: tuple[int, int], /) -> int:
        assert address == (0, 0)
        (asked,) = answers(data)
        command = Command(asked.kind & 0xFF)
        self.asked.append((command, asked.attributes[A_PROTOCOL][0]))
        error = self.errors.get(command, 0)
        if error:
            self._answers = [message(NLMSG_ERROR, 0, asked.sequence, struct.pack("=i", -error) + data[:16])]
        elif command == Command.PROTOCOL:
            versions = attribute(A_PROTOCOL, bytes([self.newest])) + attribute(A_PROTOCOL_MIN, bytes([self.oldest]))
            self._answers = [message(SUBSYSTEM | command, 0, asked.sequence, bytes(4) + versions)]
        elif command == Command.LIST:
            self._answers = self._dump(asked.sequence, self.dumps.pop(0) if len(self.dumps) > 1 else self.dumps[0])
        return len(data)

    def recv(self, size: int, /) -> bytes:
        if not self._answers:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return self._answers.pop(0)

    def close(self) -> None:
        self.closed = True

    def _dump(self, sequence: int, how: str) -> list[bytes]:
        """A head, and the element in a message of its own, as where it does not fit."""
        flags = NLM_DUMP_INTR if how == "interrupted" else 0
        listed = 2 if how == "an element goes" else 1
        head = name_attribute("hash:ip", A_TYPENAME) + attribute(A_FAMILY, bytes([2]))
        head += attribute(A_DATA | NESTED, attribute(24 | NETWORK_ORDER, listed.to_bytes(4, "big")))
        address = attribute(1 | NESTED, attribute(1 | NETWORK_ORDER, bytes([10, 0, 0, 1])))
        element = attribute(A_ADT | NESTED, attribute(A_DATA | NESTED, address))
        name = bytes(4) + name_attribute("pf-4-x")
        stale = message(SUBSYSTEM | Command.LIST, 0, sequence - 1, bytes(4) + name_attribute("pf-4-stale") + head)
        return [
            stale + message(SUBSYSTEM | Command.LIST, 0, sequence, name + head),
            message(SUBSYSTEM | Command.LIST, flags, sequence, name + element),
            message(NLMSG_DONE, 0, sequence, bytes(4)),
        ]


HELD = IpSet("pf-4-x", "hash:ip", frozenset([Element(parse_cidr("10.0.0.1/32"))]))


@pytest.mark.parametrize("trouble", ["interrupted", "an element goes"])
def test_a_dump_that_something_disturbs_is_read_again(trouble: str) -> None:
    kernel = StandIn(dumps=[trouble, trouble, "whole"])
    with Sets(kernel) as sets:
        assert {name: found.ipset for name, found in sets.read(4).items()} == {"pf-4-x": HELD}
    assert [command for command, _ in kernel.asked] == [Command.PROTOCOL, *[Command.LIST] * 3]
    assert kernel.closed


@pytest.mark.parametrize("trouble", ["interrupted", "an element goes"])
def test_a_dump_that_is_disturbed_each_time_is_given_up(trouble: str) -> None:
    with pytest.raises(HostRefused, match="something changed them during each of 10 readings"):
        Sets(StandIn(dumps=[trouble])).read(4)


@pytest.mark.parametrize(
    ("oldest", "newest", "spoken"), [(6, 6, 6), (6, 7, 7), (7, 7, 7), (6, 9, 7), (1, 5, 0), (8, 9, 0)]
)
def test_the_newest_protocol_of_both_is_spoken(oldest: int, newest: int, spoken: int) -> None:
    kernel = StandIn(oldest=oldest, newest=newest)
    if not spoken:
        with pytest.raises(HostRefused, match=f"speaks ipset protocols {oldest} to {newest}"):
            Sets(kernel)
        assert kernel.closed
        return
    Sets(kernel).read(4)
    assert kernel.asked == [(Command.PROTOCOL, 7), (Command.LIST, spoken)]


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        (Command.PROTOCOL, errno.EINVAL, "this kernel has no ip_set: modprobe ip_set"),
        (Command.PROTOCOL, errno.EPERM, "not permitted (run it as root, or with CAP_NET_ADMIN)"),
        (Command.CREATE, ERR_FIND_TYPE, "this kernel has no sets of type hash:ip"),
        (Command.LIST, errno.ENOMEM, "sets can't be read: the kernel has no memory for it"),
    ],
)
def test_a_host_that_refuses_says_so_in_one_line(command: Command, error: int, says: str) -> None:
    with pytest.raises(HostRefused) as raised:
        sets = Sets(StandIn(errors={command: error}))
        sets.read(4)
        sets.make(HELD, 4)
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_a_kernel_that_does_not_answer_is_not_waited_for() -> None:
    with pytest.raises(HostRefused, match="ipset: netlink: Resource temporarily unavailable"):
        Sets(StandIn()).destroy("pf-4-x")


def test_what_is_asked_reads_as_pyroute2_would_write_it() -> None:
    elements = [
        Element(parse_cidr("10.1.0.0/16"), nomatch=True),
        Element(parse_cidr("10.2.0.1/32"), "sctp", 80),
        Element(parse_cidr("fd00::/8"), interface="veth0"),
    ]
    decoded = ipset_msg(request(Command.ADD, 5, 7, 0, elements_body("pf-4-x", elements)))
    decoded.decode()
    assert decoded.get_attr("IPSET_ATTR_SETNAME") == "pf-4-x"
    entries = decoded.get_attr("IPSET_ATTR_ADT").get_attrs("IPSET_ATTR_DATA")
    seen = [{name.removeprefix("IPSET_ATTR_"): value for name, value in entry["attrs"]} for entry in entries]
    assert [fields.pop("IP_FROM")["attrs"][0][1] for fields in seen] == ["10.1.0.0", "10.2.0.1", "fd00::"]
    assert len({fields.pop("CADT_LINENO") for fields in seen}) == 3
    assert seen == [{"CIDR": 16, "CADT_FLAGS": 4}, {"PORT_FROM": 80, "PROTO": 132}, {"CIDR": 8, "IFACE": "veth0"}]


def test_the_largest_elements_fit_into_their_nest() -> None:
    body = elements_body("x" * 31, [LARGEST] * ELEMENTS_PER_MESSAGE)
    entry = len(elements_body("x", [LARGEST] * 2)) - len(elements_body("x", [LARGEST]))
    assert entry * ELEMENTS_PER_MESSAGE + HEAD.size <= 0xFFFF
    (asked,) = answers(request(Command.ADD, 1, 7, 0, body))
    assert len(asked.attributes[A_ADT]) == entry * ELEMENTS_PER_MESSAGE


@given(st.integers(0, 2_000_000))
def test_a_set_has_room_for_twice_its_elements_and_few_in_a_bucket(elements: int) -> None:
    hashsize, maxelem = table_size(elements)
    assert maxelem >= max(2 * elements, 65536)
    assert hashsize >= 64 and elements / 2 <= hashsize and (hashsize == 64 or hashsize <= elements)
