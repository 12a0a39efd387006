"""What an agent holds in memory follows from what there is, not from how much has happened."""

from __future__ import annotations

import gc
from pathlib import Path
from random import Random
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

import compiler.classes
import compiler.policies
from compiler.changes import Deleted
from policy.decode import decode_objects
from policy.model import Namespace, NetworkPolicy, Pod
from tests.agent.world import Kernel, World

_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType)
_AS_MANY = 600  # objects more or less, by how full it is what is kept for a while
_ROUNDS = 80  # more than after which what was left behind is taken out for sure


def held(world: World) -> int:
    """How many objects the loop leads to, without those that the fakes remember."""
    gc.collect()
    for kept in (world.flows.owners, world.flows.told, world.flows.began, world.kernel.seen, world.notes.applied_for):
        kept.clear()
    world.nudged.clear()
    seen: dict[int, Any] = {}
    waiting: list[Any] = [world.loop]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and not isinstance(each, _SHARED):
            seen[id(each)] = each
            waiting += gc.get_referents(each)
    return len(seen)


def objects(seed: int) -> list[Namespace | Pod | NetworkPolicy]:
    pods = [_pod(f"p{number}", 10 + number, "here", {"app": "xy"[number % 2]}) for number in range(4)]
    pods += [_pod(f"q{number}", 60 + number, "there", {"app": "xy"[number % 2]}) for number in range(3)]
    return [Namespace("a", {"kubernetes.io/metadata.name": "a"}), *pods, _policy("first", seed), _policy("other", seed)]


def _pod(name: str, host: int, node: str, labels: dict[str, str]) -> Pod:
    address = f"10.{1 if node == 'here' else 2}.0.{host}"
    tree = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }
    return decode_objects([tree]).cluster.pods[0]


def _policy(name: str, number: int) -> NetworkPolicy:
    """Of any two no selector, block or port is the same."""
    peers = [
        {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [f"{name}-{number}"]}]}},
        {"namespaceSelector": {"matchExpressions": [{"key": f"no-{name}-{number}", "operator": "DoesNotExist"}]}},
        {"ipBlock": {"cidr": "192.0.2.0/24", "except": [f"192.0.2.{number % 256}/32"]}},
    ]
    ports = [{"port": 1000 + number}, {"port": "web"}]
    spec = {"podSelector": {}, "ingress": [{"from": peers, "ports": ports}], "egress": [{"to": peers, "ports": ports}]}
    tree = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {**spec, "policyTypes": ["Ingress", "Egress"]},
    }
    return decode_objects([tree]).cluster.policies[0]


def policies_alone(world: World, rng: Random, number: int) -> None:
    """The pods of the node stay as they are, so that it is never laid out anew; members come and go."""
    world.say(_policy(rng.choice(("first", "other")), number))
    world.turn()
    there = world.present["Pod", "a", "q0"]
    assert isinstance(there, Pod)
    world.say(Deleted("Pod", "a", "q0"))
    world.turn()
    world.say(there)


def anything(world: World, rng: Random, number: int) -> None:
    """Also labels, UIDs, ports and namespaces that were never there before."""
    pod = world.present["Pod", "a", rng.choice(("p0", "p1", "q0"))]
    assert isinstance(pod, Pod)
    if number % 3 == 0:
        port = replace(pod.ports[0], port=2000 + number)
        world.say(replace(pod, labels={"app": "x", f"key-{number}": "z"}, ports=(port,), uid=f"{pod.name}-{number}"))
    elif number % 3 == 1:
        world.say(Namespace("a", {"kubernetes.io/metadata.name": "a", f"key-{number}": "z"}))
        world.say(Namespace(f"b-{number}", {"kubernetes.io/metadata.name": f"b-{number}"}))
        world.turn()
        world.say(Deleted("Namespace", "", f"b-{number}"))
    else:
        world.say(_policy("first", number))
        world.say(replace(_policy("other", number), name=f"other-{number}"))
        world.turn()
        world.say(Deleted("NetworkPolicy", "a", f"other-{number}"))


def pods_alone(world: World, rng: Random, number: int) -> None:
    """The policies stay, and no pod has the ports of an earlier one."""
    pod = world.present["Pod", "a", rng.choice(("p0", "p1", "q0"))]
    assert isinstance(pod, Pod)
    world.say(replace(pod, ports=(replace(pod.ports[0], port=2000 + number),)))


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("happens", [policies_alone, pods_alone, anything])
def test_what_is_held_does_not_grow_with_what_happened(
    happens: Any, lazy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(1)
    monkeypatch.setattr(compiler.classes, "_MOST_BOUND", 8)
    monkeypatch.setattr(compiler.policies, "_MANY", 8)
    begin = objects(0)
    world = World("here", tmp_path, Kernel(lazy), [each for each in begin if isinstance(each, Pod)])
    world.list(begin)
    world.turn()

    def held_after(rounds: range) -> int:
        for number in rounds:
            happens(world, rng, number)
            world.turn(0.3)
            world.turn(0.3)  # a quiet moment
        # What is kept for as long as no pod of another kind comes or goes goes with that one.
        other = _pod("another", 90, "there", {"app": "another"})
        for event in (*begin, other, Deleted("Pod", "a", "another")):
            world.say(event)
            world.turn(0.3)
            world.turn(0.3)
        assert not world.notes.defects and not world.loop.failing
        return held(world)

    first = held_after(range(1, _ROUNDS))
    assert held_after(range(_ROUNDS, 4 * _ROUNDS)) <= first + _AS_MANY
