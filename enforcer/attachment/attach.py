"""Which interface of the node leads to which pod, whatever made it. Pure: a view of the host and pods in.

In the order of trust:

    given        what the operator says
    firm         what root set up: a host route to the pod's address; an interface named by the hash of the pod's name;
                 the interface that the CNI plugins named for the pod. All that speak must name the same one.
    observed     the port where the bridge that the address is routed to has seen it: neighbour, then forwarding entry.
                 A pod can forge this, so it counts only where nothing firm speaks, and yields to what is firm.

No annotation is ever read for this: tenants write them. Where that leaves a doubt the pod is unattached, which closes
it, and the reason is said. An interface that leads further is never a pod's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from enforcer.attachment.cni_cache import Hints
from enforcer.attachment.hostview import HostView
from enforcer.attachment.places import Places, hashed_names
from policy.cidr import Address, Prefix
from policy.model import Pod

# Their packets leave by another interface of the node without passing its rules.
_PAST_THE_NODE = ("macvlan", "ipvlan", "host-device", "sriov", "vlan", "ipoib", "dpdk")
_GIVEN, _FIRM, _OBSERVED = 0, 1, 2
Said = tuple[str, object, str]  # how, of what, and which interface


class Attached(Struct, frozen=True):
    """`veths`, `bridges`, `strangers` and `uplinks` as in NodeView: of a bridge with pods, `uplinks` are all the ports
    that lead to none. `unattached`: why a pod has no interface."""

    veths: Mapping[str, str]
    bridges: Mapping[str, str]
    strangers: tuple[str, ...]
    uplinks: tuple[str, ...]
    unattached: Mapping[str, str]


class Found(Struct, frozen=True, gc=False):
    """An interface for a pod, by how much it is to be trusted; or why there is none."""

    interface: str
    trust: int = _FIRM
    doubt: str = ""
    named: tuple[str, ...] = ()  # of a doubt: the interfaces in question


def attach(
    host: HostView,
    pods: Iterable[Pod],
    given: Mapping[str, str] | None = None,
    hints: Hints | None = None,
    pod_cidrs: Sequence[Prefix] = (),
    host_interfaces: Sequence[str] = (),
) -> Attached:
    """`pods` are those of this node that have addresses. `given`: pod key to interface. `host_interfaces`: names and
    patterns (`docker*`) of interfaces that are the node's own, whatever they look like."""
    local = [pod for pod in pods if pod.selectable]
    places = Places(host, host_interfaces)
    owners = _owners(local)
    found = {pod.key: _find(pod, places, owners, given or {}, hints or Hints()) for pod in local}
    doubts = {key: each for key, each in found.items() if each.doubt}
    behind = _one_behind_each({key: each for key, each in found.items() if not each.doubt})
    veths = {key: each.interface for key, each in behind.items() if not each.doubt}
    doubts |= {key: each for key, each in behind.items() if each.doubt}
    taken = set(veths.values())
    strangers = places.pods_network(taken, pod_cidrs)
    strangers |= {name for each in doubts.values() for name in each.named if places.leads_to_a_pod(name)}
    strangers -= taken
    beside = places.ports_beside(taken | strangers) - taken
    # What leads to a pod of this node is no uplink, whatever else is routed there.
    further = {name for pod in local for address in pod.addresses for name in places.routed_further(address)}
    return Attached(
        veths,
        {name: bridge for name in sorted(taken | strangers | beside) if (bridge := places.bridge(name))},
        tuple(sorted(strangers)),
        tuple(sorted((places.uplinks() | beside) - further - taken - strangers)),
        {key: each.doubt for key, each in sorted(doubts.items())},
    )


def _owners(pods: Iterable[Pod]) -> dict[Address, str]:
    """Whose an address is: of pods that claim the same, the one that is not being deleted; "" if that is not clear."""
    claims: dict[Address, list[Pod]] = defaultdict(list)
    for pod in pods:
        for address in pod.addresses:
            claims[address].append(pod)
    owners = {}
    for address, claiming in claims.items():
        staying = [pod for pod in claiming if not pod.deleting] if len(claiming) > 1 else claiming
        owners[address] = staying[0].key if len(staying) == 1 else ""
    return owners


def _find(pod: Pod, places: Places, owners: Mapping[Address, str], given: Mapping[str, str], hints: Hints) -> Found:
    if pod.key in given:
        return Found(given[pod.key], _GIVEN)
    addresses = [address for address in pod.addresses if owners[address] == pod.key]
    said = _firm(pod, addresses, places, hints)
    trust = _FIRM
    if not said:
        said = [("the bridge's entry for", a, name) for a in addresses for name in places.observed(a)]
        trust = _OBSERVED
    names = tuple(dict.fromkeys(name for _, _, name in said))
    if len(names) > 1:
        listed = "; ".join(dict.fromkeys(f"{how} {what}: {name}" for how, what, name in said))
        return Found("", doubt=f"more than one interface is said to lead to it: {listed}", named=names)
    if not names:
        return Found("", doubt=_nowhere(pod, addresses, places, hints))
    master = places.master(names[0])
    if master and master.kind != "bridge":
        why = f"{names[0]} is a port of {master.name} ({master.kind}), whose packets pass no rules of the node"
        return Found("", doubt=why, named=names)
    return Found(names[0], trust)


def _firm(pod: Pod, addresses: Iterable[Address], places: Places, hints: Hints) -> list[Said]:
    said: list[Said] = [("the route to", a, name) for a in addresses for name in sorted(places.routed(a))]
    if places.hashed:
        names = hashed_names(pod.namespace, pod.name)
        said += [("named for", pod.key, name) for name in names if name in places.hashed]
    if known := hints.of(pod):
        said += [("CNI result", known.file, name) for name in known.interfaces if name in places.candidates]
    return said


def _nowhere(pod: Pod, addresses: Sequence[Address], places: Places, hints: Hints) -> str:
    if not addresses:
        return "its address is claimed by another pod too" if pod.addresses else "it has no address yet"
    known = hints.of(pod)
    if known and known.plugin in _PAST_THE_NODE:
        return (
            f"{known.plugin}: its packets pass no interface of this node, only inside the pod's own network namespace"
        )
    for address in addresses:
        if further := places.routed_further(address):
            return f"{', '.join(sorted(further))}, where {address} is routed to, leads to other hosts or networks too"
        names = sorted(filter(None, map(places.host.name, places.network_of(address))))
        for name in names:
            if places.by_name[name].kind == "bridge":
                return f"{name} has not seen {address} at any of its ports yet"
            return (
                f"no interface of this node leads to {address}, which is in the network of {name}: what macvlan and "
                "ipvlan pods send passes only inside the pod's own network namespace"
            )
    return "no interface of this node leads to it"


def _one_behind_each(found: Mapping[str, Found]) -> dict[str, Found]:
    """Two pods behind one interface could each take the other's address, so neither has it; but what a pod can forge
    takes nothing from one whose interface is firm."""
    behind: dict[str, list[str]] = defaultdict(list)
    for key, each in found.items():
        behind[each.interface].append(key)
    result = {}
    for interface, keys in behind.items():
        if len(keys) == 1:
            result[keys[0]] = found[keys[0]]
            continue
        best = min(found[key].trust for key in keys)
        holders = [key for key in keys if found[key].trust == best]
        for key in keys:
            others = ", ".join(each for each in keys if each != key)
            alone = holders == [key]
            doubt = "" if alone else f"{interface} is said to lead to {others} too"
            result[key] = found[key] if alone else Found("", doubt=doubt, named=(interface,))
    return result
