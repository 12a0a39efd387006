"""What the container runtime wrote down about a pod's network: whose it is, its addresses, its interface. Pure.

A runtime's CNI library writes one file for each sandbox and network, `results/<network>-<container>-<interface>`, when
the last plugin has returned from ADD, and removes it when all have returned from DEL; containerd and CRI-O use it. So
a pod's addresses are known here before its first container starts, and long before its status says them. The folder is
root's: what is in it is trusted as the kernel is, and no more is taken from it than from a pod's status.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from policy.cidr import Address, parse_pod_address
from policy.model import Pod

# The runtime's name for a pod's first interface. Its others, of further networks, have no address that policies know.
POD_INTERFACE = "eth0"
_KIND = "cniCacheV1"


class AddressKnown(Struct, frozen=True):
    """A sandbox and what it got. `file` names it here, for good: a container's number never comes again. `interface`
    is what the plugins called the node's end, "" where they named none or several; `interfaces` are all of the node's
    that they named, its bridge too. `plugin` is the kind of the first one: "bridge", "macvlan". `written`: when, in ns;
    of a pod's two sandboxes the later one counts."""

    file: str
    namespace: str
    name: str
    uid: str
    addresses: tuple[Address, ...]
    interfaces: tuple[str, ...] = ()
    plugin: str = ""
    written: int = 0


class AddressGone(Struct, frozen=True):
    file: str


class Unreadable(Struct, frozen=True):
    """A file that says nothing that can be trusted, and why. It may be half written: then it comes again."""

    file: str
    reason: str


CacheEvent = AddressKnown | AddressGone | Unreadable


class Hints:
    """What the cache says at present, by pod UID; kept up by its events."""

    def __init__(self, events: Iterable[CacheEvent] = ()) -> None:
        self._files: dict[str, AddressKnown] = {}
        self._by_uid: dict[str, set[str]] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: CacheEvent) -> frozenset[str]:
        """The UIDs of the pods that it concerns."""
        before = self._files.pop(event.file, None)
        concerned = set()
        if before:
            concerned.add(before.uid)
            self._by_uid[before.uid].discard(event.file)
            if not self._by_uid[before.uid]:
                del self._by_uid[before.uid]
        if isinstance(event, AddressKnown):
            self._files[event.file] = event
            self._by_uid.setdefault(event.uid, set()).add(event.file)
            concerned.add(event.uid)
        return frozenset(concerned)

    def of(self, pod: Pod) -> AddressKnown | None:
        """The latest sandbox of just this pod: one of the same name that came before it has another UID."""
        found = [self._files[file] for file in self._by_uid.get(pod.uid, ())] if pod.uid else []
        same = [known for known in found if (known.namespace, known.name) == (pod.namespace, pod.name)]
        return max(same, key=lambda known: (known.written, known.file), default=None)


def with_hints(pod: Pod, hints: Hints, node: str) -> Pod:
    """The pod with the addresses that its sandbox has on `node`, which its status says later: a new pod's are missing
    there, those of a restarted sandbox are still the old ones. Only a pod that may have an address gets any."""
    known = hints.of(pod) if pod.node == node and pod.selectable else None
    if known is None or not known.addresses or set(known.addresses) == set(pod.addresses):
        return pod
    return replace(pod, addresses=known.addresses)


class _Interface(Struct):
    name: str = ""
    sandbox: str = ""


class _Ip(Struct):
    address: str


class _Result(Struct):
    interfaces: list[_Interface] = []
    ips: list[_Ip] = []


class _File(Struct, rename="camel"):
    kind: str
    container_id: str
    if_name: str
    config: str = ""
    cni_args: list[tuple[str, str]] | None = None
    result: _Result | None = None


class _Plugin(Struct):
    type: str = ""


class _Config(Struct):
    type: str = ""
    plugins: list[_Plugin] = []


_decode = msgspec.json.Decoder(_File).decode
_decode_config = msgspec.json.Decoder(_Config).decode


def parse(file: str, data: bytes, written: int = 0) -> AddressKnown | Unreadable | None:
    """What one result says; None where it is none of a pod's first interface, which is no fault."""
    try:
        found = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Unreadable(file, str(error))
    if found.kind != _KIND:
        return Unreadable(file, f"kind: expected {_KIND}, not {found.kind!r}")
    arguments: Mapping[str, str] = dict(found.cni_args or ())
    if found.if_name != POD_INTERFACE or "K8S_POD_NAME" not in arguments:
        return None
    namespace, name, uid = (arguments.get(f"K8S_POD_{part}", "") for part in ("NAMESPACE", "NAME", "UID"))
    if not (namespace and name and uid):
        return Unreadable(file, "cniArgs: without K8S_POD_NAMESPACE, K8S_POD_NAME and K8S_POD_UID it names no pod")
    result = found.result or _Result()
    try:
        addresses = tuple(dict.fromkeys(_address(ip.address) for ip in result.ips))
    except ValueError as error:
        return Unreadable(file, f"result.ips: {error}")
    interfaces = tuple(each.name for each in result.interfaces if each.name and not each.sandbox)
    return AddressKnown(file, namespace, name, uid, addresses, interfaces, _plugin(found.config), written)


def _address(text: str) -> Address:
    """From an address with the length of its network."""
    return parse_pod_address(text.partition("/")[0])


def _plugin(config: str) -> str:
    """Only said in explanations, so what can't be read is no fault."""
    try:
        found = _decode_config(base64.b64decode(config, validate=True))
    except (ValueError, msgspec.DecodeError, RecursionError):
        return ""
    return found.plugins[0].type if found.plugins else found.type
