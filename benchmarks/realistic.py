"""A cluster in the likeness of a published dump of network policies: its counts and medians, which a test holds it to.

    5,413 pods, 604 namespaces, 13,678 policies; a policy's median: 6 subjects, 2 peer pods, 1 CIDR, 1 port;
    3,578 peer pods at most

What the dump's numbers leave open is chosen plainly: how namespaces grow (a few are large), which directions policies
have, and that a node has 110 pods, one namespace's beside those of many others.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from benchmarks.frames import Flow
from benchmarks.scenario import (
    ELSEWHERE,
    FIRST_SRC_PORT,
    MOST_FLOWS,
    NODE,
    PORT,
    Scenario,
    Sender,
    allowed,
    cluster,
    local,
    policy,
    remote,
)
from compiler.compile import Compiled, compile_cluster
from compiler.ports import PortSet
from policy.cidr import Address, Prefix
from policy.model import IPBlock, NetworkPolicy, Peer, Pod, Port, Rule
from policy.selector import EVERYTHING, Selector, in_, selector


class Counts(Struct, frozen=True):
    """`mesh`: the pods of all namespaces that the widest policy admits. `neighbours`: how many of the `local` pods are
    of one namespace."""

    pods: int = 5413
    namespaces: int = 604
    policies: int = 13678
    mesh: int = 3578
    local: int = 110
    neighbours: int = 12
    seed: int = 13678


SMALL = Counts(pods=200, namespaces=20, policies=300, mesh=90, local=20, neighbours=8)
_APP, _PAIR = 6, 2  # pods that share a label `app`, or `pair`
_PORTS = (53, 80, 443, 3306, 5432, 6379, 8080, 8443, 9090, 9200)


def realistic(counts: Counts, senders: Sequence[Sender]) -> list[Scenario]:
    """The cluster, and for each sender its flows: from remote pods to the pod of the node that has the median number of
    policies, or between two pods of the node that are isolated at both ends."""
    draw = random.Random(counts.seed)
    sizes = _shares(draw, counts.namespaces, counts.pods)
    pods = _pods(draw, counts, sizes)
    compiled = compile_cluster(cluster(pods, list(_policies(draw, counts, sizes))))
    near = [pod for pod in pods if pod.node == NODE]
    return [(_from_outside if sender == "outside" else _between)(draw, compiled, near) for sender in senders]


def _shares(draw: random.Random, parts: int, whole: int) -> list[int]:
    """`whole` dealt out to `parts`, at least one each, a few of them large."""
    weights = [draw.lognormvariate(0, 1) for _ in range(parts)]
    found = [1] * parts
    for number in draw.choices(range(parts), weights, k=whole - parts):
        found[number] += 1
    return found


def _pods(draw: random.Random, counts: Counts, sizes: Sequence[int]) -> list[Pod]:
    places = [(namespace, number) for namespace, size in enumerate(sizes) for number in range(size)]
    neighbours = next(n for n, size in enumerate(sizes) if size >= counts.neighbours)
    near = [place for place in places if place[0] == neighbours][: counts.neighbours]
    near += draw.sample([place for place in places if place[0] != neighbours], counts.local - len(near))
    draw.shuffle(near)
    addresses = {place: local(number) for number, place in enumerate(near)}
    mesh = set(draw.sample(places, counts.mesh))
    return [
        Pod(
            f"ns-{place[0]}",
            f"pod-{place[1]}",
            {"app": f"a{place[1] // _APP}", "pair": f"p{place[1] // _PAIR}", "mesh": "yes" if place in mesh else "no"},
            node=NODE if place in addresses else ELSEWHERE,
            addresses=(addresses.get(place) or remote(number),),
        )
        for number, place in enumerate(places)
    ]


def _policies(draw: random.Random, counts: Counts, sizes: Sequence[int]) -> Iterator[NetworkPolicy]:
    widest = Peer(pods=_is("mesh", "yes"), namespaces=EVERYTHING)
    weights = [size / sum(sizes) for size in sizes]
    homes = [*range(len(sizes)), *draw.choices(range(len(sizes)), weights, k=counts.policies - len(sizes))]
    for number, home in enumerate(homes):
        size = sizes[home]
        subjects = EVERYTHING if draw.random() < 0.15 else _is("app", f"a{draw.randrange(size) // _APP}")
        pairs = draw.choices((1, 2, 4), (8, 1, 1))[0]
        peers = [Peer(pods=_is("pair", f"p{draw.randrange(size) // _PAIR}")) for _ in range(pairs)]
        blocks = [_block(draw) for _ in range(draw.choices((0, 1, 2, 5), (2, 6, 1, 1))[0])]
        if number == 0:
            peers = [widest]
        with_pods, with_blocks = Rule(tuple(peers), _ports(draw)), Rule(tuple(blocks), _ports(draw))
        rules = [with_pods, with_blocks] if blocks else [with_pods]
        ingress, egress = draw.choices(((rules, None), (None, rules), (rules, rules)), (5, 2, 3))[0]
        yield policy(f"policy-{number}", subjects, ingress, egress, f"ns-{home}")


def _block(draw: random.Random) -> Peer:
    length = draw.choice((16, 24, 24, 32))
    network = (172 << 24 | draw.getrandbits(24)) >> (32 - length) << (32 - length)
    return Peer(block=IPBlock(Prefix(4, network, length)))


def _ports(draw: random.Random) -> tuple[Port, ...]:
    count = draw.choices((0, 1, 2, 4), (1, 7, 1, 1))[0]
    return tuple(Port("UDP", number, number) for number in sorted(draw.sample(_PORTS, count)))


def _from_outside(draw: random.Random, compiled: Compiled, near: Sequence[Pod]) -> Scenario:
    reachable = [(pod, ends) for pod in near if (ends := list(_admitted(draw, compiled, pod, near)))]
    reachable.sort(key=lambda found: (len(compiled.selecting(found[0])), found[0].key))
    dst, candidates = reachable[len(reachable) // 2]
    ends = draw.choices(candidates, k=MOST_FLOWS)
    flows = [Flow(src, dst.addresses[0], FIRST_SRC_PORT + n, port) for n, (src, port) in enumerate(ends)]
    src = next(pod for pod in near if pod != dst)
    return Scenario(compiled, src, dst, "outside", tuple(flows))


def _between(draw: random.Random, compiled: Compiled, near: Sequence[Pod]) -> Scenario:
    found = []
    for src, dst in itertools.permutations(near, 2):
        if not (compiled.allow(src, "egress").isolated and compiled.allow(dst, "ingress").isolated):
            continue
        tried = [Flow(src.addresses[0], dst.addresses[0], FIRST_SRC_PORT, port) for port in _PORTS]
        found += [(src, dst, flow) for flow, passes in zip(tried, allowed(compiled, tried), strict=True) if passes]
    src, dst, flow = draw.choice(found)
    flows = [replace(flow, src_port=FIRST_SRC_PORT + n) for n in range(MOST_FLOWS)]
    return Scenario(compiled, src, dst, "src", tuple(flows))


def _admitted(draw: random.Random, compiled: Compiled, dst: Pod, near: Sequence[Pod]) -> Iterator[tuple[Address, int]]:
    """What may send to `dst` from other nodes, and to which port; of a block one address, of all ports one."""
    own = {pod.addresses[0] for pod in near}
    for bound in compiled.allow(dst, "ingress").bound:
        ports = [low for _, each in bound.ports if isinstance(each, PortSet) for low, _ in each.udp]
        for peers in (peers for _, peers in bound.peers):
            senders = [address for address, _, _ in sorted(compiled.members(peers)) if address not in own]
            senders += [Address(4, draw.randint(low, high)) for low, high in peers.addresses.v4]
            yield from ((sender, port or PORT) for sender in senders for port in ports)


def _is(key: str, value: str) -> Selector:
    return selector([in_(key, value)])
