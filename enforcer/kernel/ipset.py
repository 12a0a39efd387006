"""Our sets in the kernel, over netlink: made, filled, changed, swapped, destroyed and read in few, large messages.

The socket belongs to the network namespace that its thread is in when it is opened, and to that thread.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Protocol, Self

from enforcer.kernel.ipset_answer import (
    ERR_BUSY,
    ERR_FIND_TYPE,
    NLM_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    OF_THE_ELEMENT,
    Answer,
    Listing,
    answers,
    words,
)
from enforcer.kernel.ipset_wire import (
    A_PROTOCOL,
    A_PROTOCOL_MIN,
    A_SETNAME2,
    ELEMENTS_PER_MESSAGE,
    NLM_ACK,
    NLM_DUMP,
    NLM_EXCL,
    OUR_PROTOCOLS,
    SUBSYSTEM,
    Command,
    create_body,
    elements_body,
    name_attribute,
    request,
)
from enforcer.rules.names import generation_name
from enforcer.rules.parse import InstalledSet
from enforcer.rules.render import create_text, element_text
from enforcer.rules.ruleset import Element, IpSet
from policy.cidr import Family
from policy.errors import HostRefused, KernelRejected

# A refusal brings the whole request back.
_RECEIVE = 1 << 17
_READS = 10
# A set is in use for a moment longer than it looks: nft lets go of a deleted rule's sets in a worker, and a dump holds
# the set that it is at. A second in all.
_BUSY_WAITS = tuple(0.001 * 2**n for n in range(10))


class Wire(Protocol):
    """A netlink socket, as pyroute2's."""

    def sendto(self, data: bytes, address: tuple[int, int], /) -> int: ...

    def recv(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Sets:
    """The sets of the network namespace that it is made in. Each call is done when it returns.

    HostRefused, in one line, where the host has no sets, forbids them or does not answer. KernelRejected where the
    kernel refuses a change, with the change in the words of `ipset`; what came before it is done.
    """

    def __init__(self, wire: Wire | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._wire = wire or open_wire()
        self._sleep = sleep
        self._sequence = 0
        self._protocol = max(OUR_PROTOCOLS)
        try:
            self._protocol = self._negotiate()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    def read(self, family: Family) -> dict[str, InstalledSet]:
        """Our sets of one family by name. Where another writer is seen at work on them they are read again; of an
        element that comes or goes during the reading, nothing is promised but that all others are right."""
        for _ in range(_READS):
            listing = Listing(family)
            interrupted = False
            for answer in self._ask(Command.LIST, NLM_DUMP, b""):
                interrupted |= bool(answer.flags & NLM_DUMP_INTR)
                if answer.kind == SUBSYSTEM | Command.LIST:
                    listing.take(answer)
                elif answer.error:
                    raise HostRefused(f"sets can't be read: {words(answer.error, Command.LIST)}")
            if listing.whole and not interrupted:
                return listing.sets
        raise HostRefused(f"sets can't be read: something changed them during each of {_READS} readings")

    def read_one(self, identity: str, family: Family) -> InstalledSet | None:
        """One of our sets, in its only generation; None where it is not there, or is being changed just now."""
        name = generation_name(identity, 0)
        listing = Listing(family)
        for answer in self._ask(Command.LIST, NLM_DUMP, name_attribute(name)):
            if answer.kind == SUBSYSTEM | Command.LIST:
                listing.take(answer)
            elif answer.error not in (0, errno.ENOENT):
                raise HostRefused(f"sets can't be read: {words(answer.error, Command.LIST)}")
        return listing.sets.get(name) if listing.whole else None

    def make(self, ipset: IpSet, family: Family) -> None:
        """A new set with its elements. One that can't be filled stays, as far as it came."""
        head = create_text(IpSet(ipset.name, ipset.type, frozenset(), ipset.counters), family).strip()
        error = self._do(Command.CREATE, create_body(ipset, family))
        if error == ERR_FIND_TYPE:
            raise HostRefused(f"this kernel has no sets of type {ipset.type} (module ip_set_{ipset.type})")
        self._judge(error, Command.CREATE, head)
        self._each(Command.ADD, ipset.name, ipset.elements)

    def change(self, name: str, add: Iterable[Element], remove: Iterable[Element]) -> None:
        """Elements come, then elements go. What comes must not be there yet, and what goes must be."""
        self._each(Command.ADD, name, add)
        self._each(Command.DEL, name, remove)

    def swap(self, one: str, other: str) -> None:
        """Two sets of one type exchange their names, rules' references included, in one moment."""
        body = name_attribute(one) + name_attribute(other, A_SETNAME2)
        self._patiently(Command.SWAP, body, f"swap {one} {other}")

    def destroy(self, name: str) -> None:
        """A set that nothing looks in any more."""
        self._patiently(Command.DESTROY, name_attribute(name), f"destroy {name}")

    def _patiently(self, command: Command, body: bytes, text: str) -> None:
        error = self._do(command, body)
        for wait in _BUSY_WAITS:
            if error not in (ERR_BUSY, errno.EBUSY):
                break
            self._sleep(wait)
            error = self._do(command, body)
        self._judge(error, command, text)

    def _each(self, command: Command, name: str, elements: Iterable[Element]) -> None:
        rest = iter(elements)
        while some := list(islice(rest, ELEMENTS_PER_MESSAGE)):
            (answer,) = self._ask(command, NLM_ACK | NLM_EXCL, elements_body(name, some))
            if answer.error:
                which = element_text(some[answer.element - 1]) if answer.element else ""
                what = f"{command.name.lower()} {name} {which or f'({len(some)} elements)'}"
                self._judge(answer.error, command, what, which)

    def _do(self, command: Command, body: bytes) -> int:
        (answer,) = self._ask(command, NLM_ACK | NLM_EXCL, body)
        return answer.error

    def _judge(self, error: int, command: Command, text: str, element: str = "") -> None:
        if error:
            at_fault = element if command is Command.ADD and error in OF_THE_ELEMENT else ""
            raise KernelRejected(f"ipset: {words(error, command)}: {text!r}", at_fault)

    def _negotiate(self) -> int:
        """The newest protocol that both the kernel and we speak."""
        (answer,) = self._ask(Command.PROTOCOL, 0, b"")
        if answer.kind == NLMSG_ERROR:
            if answer.error == errno.EPERM:
                raise HostRefused(f"ipset: {words(answer.error, Command.PROTOCOL)}")
            raise HostRefused("this kernel has no ip_set: modprobe ip_set, or use a kernel with CONFIG_IP_SET")
        newest = answer.attributes[A_PROTOCOL][0]
        oldest = answer.attributes.get(A_PROTOCOL_MIN, bytes([newest]))[0]
        both = [version for version in OUR_PROTOCOLS if oldest <= version <= newest]
        if not both:
            raise HostRefused(f"this kernel speaks ipset protocols {oldest} to {newest}, podfence {OUR_PROTOCOLS}")
        return max(both)

    def _ask(self, command: Command, flags: int, body: bytes) -> Iterator[Answer]:
        """Sends one request, and gives what comes back for it, to the last message."""
        self._sequence += 1
        try:
            self._wire.sendto(request(command, self._sequence, self._protocol, flags, body), (0, 0))
            while True:
                for answer in answers(self._wire.recv(_RECEIVE)):
                    if answer.sequence == self._sequence:
                        yield answer
                        if answer.kind in (NLMSG_ERROR, NLMSG_DONE) or not flags & NLM_DUMP:
                            return
        except OSError as error:
            raise HostRefused(f"ipset: netlink: {error.strerror}") from None


def open_wire() -> Wire:
    """A socket of the network namespace that this thread is in."""
    try:
        from pyroute2.netlink import NETLINK_NETFILTER
        from pyroute2.netlink.nlsocket import NetlinkSocket
    except ImportError:
        raise HostRefused("pyroute2 is not installed: pip install 'podfence[node]'") from None
    try:
        wire: Wire = NetlinkSocket(family=NETLINK_NETFILTER)
    except OSError as error:
        raise HostRefused(f"this kernel has no netfilter netlink: {error.strerror}") from None
    return wire
