"""The loop: nothing is taken away before everything was heard, then the kernel follows, whatever happens on the way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from compiler.changes import Deleted
from enforcer.agent.knowledge import Again
from enforcer.agent.opening import close_node, open_node
from enforcer.attachment.cni_cache import AddressGone, AddressKnown
from enforcer.cluster.news import Listed
from enforcer.rules import names
from policy.cidr import Address
from policy.model import Namespace, NetworkPolicy, Pod, Port, Rule
from policy.selector import EVERYTHING
from tests.agent.world import Kernel, World, host_of
from tests.compiler.histories import batches, history, objects_of
from tests.compiler.slow_twin import Objects, happen

Object = Namespace | Pod | NetworkPolicy


def some_objects(seed: int = 3) -> tuple[list[Object], str]:
    """Objects, and the node that most pods are on."""
    present: Objects = {}
    for event in objects_of(seed):
        happen(present, event)
    nodes = Counter(each.node for each in present.values() if isinstance(each, Pod) and each.node and each.addresses)
    return [*present.values()], nodes.most_common(1)[0][0]


def pods_of(objects: list[Object]) -> list[Pod]:
    return [each for each in objects if isinstance(each, Pod)]


def synced(tmp_path: Path, seed: int = 3) -> tuple[World, list[Pod]]:
    """A world that has followed a first sync, and the node's own pods."""
    objects, node = some_objects(seed)
    world = World(node, tmp_path, pods=pods_of(objects))
    world.list(objects)
    world.turn()
    assert world.loop.followed and world.as_fresh()
    return world, [*world.knowledge.local.values()]


def test_a_node_that_nobody_enforced_is_closed_before_anything_was_heard(tmp_path: Path) -> None:
    world = World("n1", tmp_path)
    world.turn()
    for plane in world.kernel.planes.values():
        assert names.FORWARD in plane.chains and plane.builtin["FORWARD"] == (names.FORWARD,)
    assert not world.loop.followed and world.flows.began == []


def test_a_node_that_was_enforced_stays_as_it_is_until_every_kind_was_heard(tmp_path: Path) -> None:
    first, _ = synced(tmp_path)
    steps = len(first.kernel.seen)
    again = World(first.node, tmp_path, first.kernel, pods_of([*first.present.values()]))
    again.turn()
    for kind in ("Node", "Namespace", "NetworkPolicy"):
        objects = tuple(o for (k, *_), o in first.present.items() if k == kind)
        again.inbox.put(Listed(kind, objects))  # type: ignore[arg-type]
        again.turn(1)
    assert len(first.kernel.seen) == steps and not again.loop.followed
    again.list(first.present.values())
    again.turn()
    assert again.loop.followed and again.as_fresh()
    assert len(first.kernel.seen) == steps, "a restart with nothing changed writes nothing"


@pytest.mark.parametrize("seed", range(12))
def test_after_any_history_the_kernel_is_as_after_a_fresh_start(seed: int, tmp_path: Path) -> None:
    rng = Random(seed)
    events = history(rng, 60)
    everybody = {event.key: event for event in events if isinstance(event, Pod)}
    nodes = Counter(event.node for event in events if isinstance(event, Pod) and event.node)
    world = World(nodes.most_common(1)[0][0], tmp_path, pods=everybody.values())
    world.list([])
    for batch in batches(rng, events):
        for event in batch:
            world.say(event)
        world.inbox.put(host_of(pod for pod in everybody.values() if rng.random() < 0.9))
        if rng.random() < 0.2:
            world.list([*world.present.values()])  # what was heard twice does no harm
        if rng.random() < 0.2:
            world.kernel.fail_in = rng.randrange(4)
        world.turn(rng.choice((0, 0.1, 20)))
    world.kernel.fail_in = None
    world.turn(20)
    world.turn(20)
    assert not world.loop.failing and world.as_fresh()


def test_what_the_kernel_refuses_is_tried_again_and_nothing_is_forgotten(tmp_path: Path) -> None:
    world, local = synced(tmp_path)
    world.kernel.fail_in = 0
    world.say(Deleted("Pod", local[0].namespace, local[0].name))
    world.turn()
    assert world.loop.failing and world.notes.failures == ["told to"] and not world.flows.told
    world.turn(0.01)
    assert world.loop.failing, "not at once"
    world.turn(1)
    assert not world.loop.failing and world.as_fresh()
    assert world.flows.told[-1].restores or world.flows.told[-1].ends


def test_what_changes_nothing_for_the_node_is_passed_over(tmp_path: Path) -> None:
    world, local = synced(tmp_path)
    applied, steps, told = len(world.notes.applied_for), len(world.kernel.seen), len(world.flows.told)
    for pod in local:
        world.say(pod)
    world.say(Namespace("nobody-selects-it", {}))
    world.turn()
    assert not world.knowledge.changed and world.as_fresh()
    now = len(world.notes.applied_for), len(world.kernel.seen), len(world.flows.told)
    assert now == (applied, steps, told)


def test_a_batch_compiles_once(tmp_path: Path) -> None:
    world, local = synced(tmp_path)
    applied = len(world.notes.applied_for)
    for pod in local:
        world.say(replace(pod, labels={"app": "another"}))
        world.say(replace(pod, labels={"app": "a third"}))
    world.turn()
    assert len(world.notes.applied_for) == applied + 1
    assert f"Pod {local[0].key}" in world.notes.applied_for[-1] and world.as_fresh()


def test_others_changes_are_repaired_and_told(tmp_path: Path) -> None:
    world, _ = synced(tmp_path)
    plane = world.kernel.planes[4]
    plane.chains[names.FORWARD] = ()
    world.turn()
    assert world.notes.repairs == [] and not world.as_fresh()
    world.drift.drifted = True
    world.turn(0.2)
    assert len(world.notes.repairs) == 1 and world.as_fresh()


def test_what_nobody_noticed_is_found_by_reading_back(tmp_path: Path) -> None:
    world, _ = synced(tmp_path)
    world.kernel.planes[6].chains[names.INPUT] = ()
    world.turn(59)
    assert not world.as_fresh()
    world.turn(2)
    assert world.as_fresh() and len(world.notes.repairs) == 1
    world.turn(61)
    assert len(world.notes.repairs) == 1, "where nothing is wrong nothing is repaired"


def test_an_address_stays_closed_while_its_former_owners_flows_may_live(tmp_path: Path) -> None:
    world, local = synced(tmp_path)
    address = local[0].addresses[0]
    world.flows.closed = frozenset({address})
    world.say(replace(local[0], uid="another"))
    world.turn()
    assert world.loop.view and world.loop.view.closed == {address} and world.as_fresh()
    world.flows.closed = frozenset()
    world.inbox.put(Again("flows of former owners are gone"))
    world.turn()
    assert world.loop.view.closed == frozenset() and world.as_fresh()


def test_flows_are_told_of_only_once_a_whole_cluster_is_known(tmp_path: Path) -> None:
    world = World("n1", tmp_path)
    world.turn()
    assert world.flows.owners == [] and world.flows.began == []
    world.list([])
    world.turn()
    assert len(world.flows.began) == 1 and world.flows.told == []


def test_an_address_that_the_runtime_wrote_down_counts_before_the_api_server_says_it(tmp_path: Path) -> None:
    objects, node = some_objects()
    whole = next(pod for pod in pods_of(objects) if pod.node == node and pod.addresses and pod.selectable)
    whole = replace(whole, uid="u-1")
    world = World(node, tmp_path, pods=[whole])
    world.list([replace(whole, addresses=())])
    world.turn()
    assert world.knowledge.local == {}
    world.inbox.put(AddressKnown("file", whole.namespace, whole.name, "u-1", whole.addresses))
    world.turn()
    assert world.knowledge.local[whole.key].addresses == whole.addresses
    assert world.loop.view and whole.key in world.loop.view.veths
    world.inbox.put(AddressGone("file"))
    world.turn()
    assert world.knowledge.local == {}


def test_a_hint_for_another_pod_of_that_name_says_nothing(tmp_path: Path) -> None:
    objects, node = some_objects()
    whole = next(pod for pod in pods_of(objects) if pod.node == node and pod.addresses and pod.selectable)
    world = World(node, tmp_path, pods=[whole])
    world.inbox.put(AddressKnown("file", whole.namespace, whole.name, "old", whole.addresses))
    world.list([replace(whole, uid="new", addresses=())])
    world.turn()
    assert world.knowledge.local == {}


def test_break_glass_opens_also_where_nothing_was_heard_yet(tmp_path: Path) -> None:
    first, _ = synced(tmp_path)
    world = World(first.node, tmp_path, first.kernel)
    open_node(str(tmp_path), "incident")
    world.turn()
    assert world.empty and "incident" in world.knowledge.opened
    close_node(str(tmp_path))
    world.list(first.present.values())
    world.turn()
    assert not world.empty and world.as_fresh()


def test_a_pod_that_moves_away_takes_its_rules_with_it(tmp_path: Path) -> None:
    world, local = synced(tmp_path)
    world.say(replace(local[0], node="elsewhere"))
    world.turn()
    assert local[0].key not in world.knowledge.local and world.as_fresh()


def test_addresses_are_told_with_their_owners(tmp_path: Path) -> None:
    world, local = synced(tmp_path)
    owners = world.flows.owners[-1]
    alone = [pod for pod in local if all(sum(a in p.addresses for p in local) == 1 for a in pod.addresses)]
    assert alone and all(owners[address] == (pod.uid or pod.key) for pod in alone for address in pod.addresses)
    assert all(isinstance(address, Address) for address in owners)


def test_a_kernel_that_fails_at_the_start_is_tried_again(tmp_path: Path) -> None:
    kernel = Kernel()
    kernel.fail_in = 0
    world = World("n1", tmp_path, kernel)
    world.turn()
    assert world.loop.failing and world.empty
    world.turn(1)
    assert not world.loop.failing and not world.empty


def test_a_pod_that_no_interface_is_known_for_is_nudged(tmp_path: Path) -> None:
    world, local = synced(tmp_path)
    world.turn(1)
    assert world.nudged == []
    world.inbox.put(host_of(local[1:]))
    world.turn()
    world.turn(1)
    assert set(world.nudged) == set(local[0].addresses)


def test_programmed_is_what_the_kernel_holds_and_no_sooner(tmp_path: Path) -> None:
    world, pods = synced(tmp_path)
    pod = pods[0]
    assert world.loop.programmed("Pod", pod.namespace, pod.name)
    assert not world.loop.programmed("Pod", pod.namespace, "nobody")
    assert not world.loop.programmed("NetworkPolicy", pod.namespace, pod.name)
    rule = Rule((), (Port("TCP", 4711, 4711),))
    world.say(NetworkPolicy(pod.namespace, "new", EVERYTHING, ("ingress", "egress"), (rule,), ()))
    assert not world.loop.programmed("NetworkPolicy", pod.namespace, "new"), "not even heard"
    world.kernel.fail_in = 0
    world.turn()
    assert world.loop.failing and not world.loop.programmed("NetworkPolicy", pod.namespace, "new"), "refused"
    world.turn(20)
    assert world.as_fresh() and world.loop.programmed("NetworkPolicy", pod.namespace, "new")


def test_a_pod_is_not_programmed_while_it_is_closed(tmp_path: Path) -> None:
    """Its interface is not known, or flows of its address's former owner have not ended."""
    world, pods = synced(tmp_path)
    pod = pods[0]
    world.say(replace(pod, name="unattached", uid="other", addresses=(Address(4, 0x0A01_00FE),)))
    world.turn()
    assert not world.loop.programmed("Pod", pod.namespace, "unattached")
    assert world.loop.programmed("Pod", pod.namespace, pod.name)
    world.flows.closed = frozenset(pod.addresses)
    world.say(replace(pod, labels={"other": "label"}))
    world.turn()
    assert not world.loop.programmed("Pod", pod.namespace, pod.name)


def test_flows_that_others_let_in_are_looked_at_once_the_rules_are_repaired(tmp_path: Path) -> None:
    world, pods = synced(tmp_path)
    told = len(world.flows.told)
    for plane in world.kernel.planes.values():
        plane.chains[names.FORWARD] = ()
    world.drift.drifted = True
    world.turn(1)
    assert world.notes.repairs and [each.everything for each in world.flows.told[told:]] == [True]
    world.turn(1)
    assert len(world.flows.told) == told + 1, "once"
    for plane in world.kernel.planes.values():
        plane.chains[names.FORWARD] = ()
    world.drift.drifted = True
    world.say(replace(pods[0], labels={"other": "label"}))
    world.turn()
    assert world.flows.told[-1].everything, "a change of our own found it"


def test_addresses_of_the_nodes_blocks_that_other_nodes_pods_have_are_followed(tmp_path: Path) -> None:
    """And no longer once these pods are gone, finished or their node's own."""
    world, _ = synced(tmp_path)
    guest = Pod("guests", "guest", {}, node="another", addresses=(Address(4, (10 << 24) + (1 << 16) + 65000),))

    def abroad() -> frozenset[Address]:
        world.turn()
        assert world.as_fresh() and world.loop.view
        return world.loop.view.abroad & {*guest.addresses}

    for away in (Deleted("Pod", "guests", "guest"), replace(guest, phase="Succeeded"), replace(guest, addresses=())):
        world.say(guest)
        assert abroad() == {*guest.addresses}
        assert world.flows.told[-1].ends >= {*guest.addresses} and world.flows.told[-1].restores
        world.say(away)
        assert not abroad()
        assert world.flows.told[-1].ends >= {*guest.addresses}
    world.say(guest)
    assert abroad() and world.knowledge.anew(world.knowledge.quarantine).view(frozenset()).abroad >= abroad()


def test_addresses_of_other_nodes_are_followed(tmp_path: Path) -> None:
    """What was a node's stays one: agents, and whatever else runs in its network, are replaced."""
    world, _ = synced(tmp_path)
    proxy = Pod("kube-system", "proxy", {}, node="another", addresses=(Address(4, 10 << 24),), host_network=True)
    own = replace(proxy, name="own", node=world.knowledge.node, addresses=(Address(4, 11 << 24),))

    def known() -> bool:
        world.turn()
        assert world.as_fresh() and world.loop.view
        assert not world.loop.view.hosts & {*own.addresses}
        return world.loop.view.hosts >= {*proxy.addresses}

    world.say(own)
    assert not known()
    for each in (proxy, replace(proxy, labels={"other": "label"}), Deleted("Pod", "kube-system", "proxy")):
        world.say(each)
        assert known()
    assert world.knowledge.anew(world.knowledge.quarantine).view(frozenset()).hosts >= {*proxy.addresses}
