"""A defect of podfence's own: rules stay, what it stumbles over is closed, and all else goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from compiler.changes import Deleted
from enforcer.agent.inbox import Inbox
from enforcer.agent.quarantine import Quarantine, Search, closed, shut
from enforcer.cluster.news import Changed
from enforcer.readback.simulate import Packet
from enforcer.rules.steps import Plan
from policy.cidr import parse_address, parse_cidr
from policy.errors import KernelRejected
from policy.model import IPBlock, Namespace, NetworkPolicy, Peer, Pod, Rule
from policy.selector import EVERYTHING, in_, selector
from tests.agent.world import Kernel, World
from tests.enforcer.test_plan import interface

NO_PEER: Any = object()  # what no decoder makes: whatever looks at it fails
WEB, API = (
    Pod("shop", name, {"app": name}, uid=f"u-{name}", node="n1", addresses=(parse_address(address),), phase="Running")
    for name, address in (("web", "10.1.0.1"), ("api", "10.1.0.2"))
)
FAR = Pod("shop", "far", {"app": "far"}, uid="u-f", node="n2", addresses=(parse_address("10.2.0.1"),), phase="Running")
BAD = NetworkPolicy("shop", "bad", selector([in_("app", "api")]), ("ingress",), (Rule((NO_PEER,)),))
GOOD = NetworkPolicy("shop", "good", selector([in_("app", "web")]), ("ingress",), (Rule(),))
CLOSED_WEB = NetworkPolicy("shop", "web", selector([in_("app", "web")]), ("ingress",))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World("n1", tmp_path, pods=[WEB, API])
    world.list([Namespace("shop", {}), WEB, API, FAR])
    world.turn()
    assert world.loop.followed
    return world


def passes(world: World, src: Pod, dst: Pod) -> bool:
    """What the rules that are in force say of a new flow, TCP to port 80."""
    ways = [interface(pod) if pod.node == "n1" else "eth0" for pod in (src, dst)]
    packet = Packet(src.addresses[0], dst.addresses[0], "tcp", 80, *ways)
    return world.kernel.planes[4].passes("FORWARD", packet)


def kept(world: World) -> list[str]:
    return [name for _, _, name in world.loop.knowledge.quarantine.kept]


def test_a_policy_that_we_stumble_over_isolates_and_all_else_goes_on(world: World) -> None:
    assert passes(world, FAR, API) and passes(world, FAR, WEB)
    world.say(BAD)
    world.say(CLOSED_WEB)
    world.turn()
    assert kept(world) == ["bad"] and not world.loop.failing and world.notes.defects
    assert not passes(world, FAR, API), "it isolates whom it selects"
    assert not passes(world, FAR, WEB), "what came with it is followed"
    assert not passes(world, API, FAR), "in both directions, since what it means is not known"
    world.say(GOOD)
    world.turn()
    assert passes(world, FAR, WEB) and kept(world) == ["bad"]
    defects = len(world.notes.defects)
    world.turn(1)
    world.turn(20)
    assert len(world.notes.defects) == defects, "it is not stumbled over again"


def test_it_is_tried_again_once_it_is_another(world: World) -> None:
    world.say(BAD)
    world.turn()
    assert kept(world) == ["bad"]
    world.say(replace(BAD, ingress=(Rule(),)))
    world.turn()
    assert kept(world) == [] and passes(world, FAR, API) and passes(world, API, FAR)
    world.say(BAD)
    world.turn()
    assert kept(world) == ["bad"] and not passes(world, FAR, API)
    world.say(Deleted("NetworkPolicy", "shop", "bad"))
    world.turn()
    assert kept(world) == [] and passes(world, FAR, API)


def test_a_selector_that_we_stumble_over_closes_the_namespace(world: World) -> None:
    world.say(replace(BAD, subjects=NO_PEER))
    world.turn()
    assert kept(world) == ["bad"] and not world.loop.failing
    assert not any(passes(world, FAR, pod) or passes(world, pod, FAR) for pod in (WEB, API))


def test_a_pod_that_we_stumble_over_is_closed(world: World) -> None:
    world.say(replace(API, labels=NO_PEER))
    world.turn()
    assert kept(world) == ["api"] and not world.loop.failing
    assert not passes(world, FAR, API) and not passes(world, API, FAR) and not passes(world, WEB, API)
    assert passes(world, FAR, WEB) and passes(world, WEB, FAR)
    assert world.loop.knowledge.attached.unattached == {"shop/api": "it is in quarantine"}
    assert world.loop.view and interface(API) in world.loop.view.strangers
    world.say(API)
    world.turn()
    assert kept(world) == [] and passes(world, FAR, API)


def test_a_pod_of_the_nodes_own_network_is_left_out_whole() -> None:
    """It is no subject, here or elsewhere: its address, which is the node's, is all that is known of it."""
    proxy = Pod("kube-system", "proxy", {}, node="n1", addresses=API.addresses, host_network=True)
    for node in ("n1", "n2"):
        assert closed(proxy, node).stand_in == Deleted("Pod", "kube-system", "proxy")
    assert closed(API, "n1").stand_in == replace(API, labels={}, ports=())


def test_to_try_without_a_pod_forgets_no_interface(world: World) -> None:
    world.turn()
    before = dict(world.knowledge.leaving.last)
    trial = world.knowledge.anew(Quarantine([shut(API, "n1")]))
    assert API.key in dict(before.keys()) and trial.attached and API.key not in dict(trial.leaving.last.keys())
    assert world.knowledge.leaving.last == before


def test_a_pod_elsewhere_that_we_stumble_over_is_nobodys_peer(world: World) -> None:
    world.say(NetworkPolicy("shop", "all", EVERYTHING, ("ingress",), (Rule(),)))
    world.say(replace(FAR, labels=NO_PEER))
    world.turn()
    assert kept(world) == ["far"] and FAR.key not in world.keeper.index.pods and not world.loop.failing


def test_several_are_found_among_many_also_at_the_first_sync(tmp_path: Path) -> None:
    world = World("n1", tmp_path, pods=[WEB, API])
    bad = [replace(BAD, name=f"bad-{at}") for at in range(3)]
    good = [replace(GOOD, name=f"good-{at}", subjects=selector([in_("app", f"v{at}")])) for at in range(60)]
    objects: list[Namespace | Pod | NetworkPolicy] = [Namespace("shop", {}), WEB, API, FAR, *good, *bad]
    Random(1).shuffle(objects)
    world.list(objects)
    world.turn()
    assert sorted(kept(world)) == ["bad-0", "bad-1", "bad-2"] and world.loop.followed
    assert passes(world, FAR, WEB) and not passes(world, FAR, API)


def test_what_no_object_is_the_cause_of_leaves_the_rules_and_is_tried_again(world: World) -> None:
    world.say(CLOSED_WEB)
    world.turn()
    before = {family: dict(plane.chains) for family, plane in world.kernel.planes.items()}
    whole = world.flows.hand_over
    world.flows.hand_over = NO_PEER
    world.say(GOOD)
    world.turn()
    assert "a defect of podfence" in world.loop.failing and kept(world) == []
    assert before == {family: dict(plane.chains) for family, plane in world.kernel.planes.items()}
    world.turn(20)
    assert world.loop.failing
    world.flows.hand_over = whole  # type: ignore[method-assign]
    world.turn(20)
    assert not world.loop.failing and passes(world, FAR, WEB) and world.as_fresh()
    assert world.flows.told[-1].everything, "whatever was missed meanwhile"


def test_a_defect_of_those_who_are_told_ends_nothing(world: World) -> None:
    world.notes.turned = NO_PEER
    world.say(CLOSED_WEB)
    world.turn()
    assert len(world.notes.defects) == 1 and not world.loop.failing and not passes(world, FAR, WEB)


def test_a_message_that_cannot_be_taken_in_is_said_to_be_missing(world: World) -> None:
    world.inbox.put(Changed("NetworkPolicy", NO_PEER))
    world.say(CLOSED_WEB)
    world.turn()
    assert "defect" in world.loop.knowledge.heard.troubles["NetworkPolicy"].reason
    assert not world.loop.failing and not passes(world, FAR, WEB)


def test_without_memory_the_process_ends_and_the_rules_stay(world: World) -> None:
    def none_left(*_: object) -> Any:
        raise MemoryError

    world.say(CLOSED_WEB)
    world.turn()
    world.flows.hand_over = none_left  # type: ignore[method-assign]
    world.say(GOOD)
    with pytest.raises(MemoryError):
        world.turn()
    assert not passes(world, FAR, WEB) and not world.empty


def test_the_kernel_is_never_asked_while_it_is_searched(world: World) -> None:
    seen = len(world.kernel.seen)
    world.say(BAD)
    world.turn()
    plans = [plan for plan in world.kernel.seen[seen:] if plan]
    assert len(plans) == 1, "the family that the pod has an address of"


@pytest.mark.parametrize("seed", range(20))
def test_a_search_finds_just_what_it_takes(seed: int) -> None:
    rng = Random(seed)
    suspects = [replace(GOOD, name=f"p{at}") for at in range(rng.randint(1, 60))]
    bad = {each.name for each in rng.sample(suspects, rng.randint(0, min(5, len(suspects))))}
    tries = 0

    def goes_on(quarantine: Quarantine) -> bool:
        nonlocal tries
        tries += 1
        return bad <= {name for _, _, name in quarantine.kept}

    lately: Sequence[NetworkPolicy] = suspects[: rng.randint(0, len(suspects))]
    found = Search("n1", goes_on, lambda: False).among(lately, suspects)
    assert {each.suspect.name for each in found} == bad
    assert tries <= 4 + len(bad) * 16


def test_a_search_that_takes_too_long_is_given_up() -> None:
    suspects = [replace(GOOD, name=f"p{at}") for at in range(60)]
    assert Search("n1", lambda _: False, lambda: True).among(suspects) == []


def test_an_inbox_is_not_emptied_by_a_defect(world: World) -> None:
    assert isinstance(world.inbox, Inbox)
    world.inbox.put(Changed("Pod", NO_PEER))
    world.say(BAD)
    world.say(CLOSED_WEB)
    world.turn()
    world.turn()
    assert kept(world) == ["bad"] and not passes(world, FAR, WEB)


class Refusing(Kernel):
    """Takes no set with one of these elements."""

    def __init__(self, *elements: str) -> None:
        super().__init__()
        self.elements = elements

    def begin(self, steps: Plan) -> Callable[[], None]:
        for element in self.elements:
            if any(f" {element}\n" in step.text for step in steps):
                raise KernelRejected(f"ipset: Invalid argument: {element}", element)
        return super().begin(steps)


OUTSIDE = NetworkPolicy(
    "shop",
    "outside",
    selector([in_("app", "api")]),
    ("ingress",),
    (Rule((Peer(block=IPBlock(parse_cidr("192.0.2.66/31"))),)),),
)
FROM_FAR = NetworkPolicy(
    "shop", "from-far", EVERYTHING, ("ingress",), (Rule((Peer(pods=selector([in_("app", "far")])),)),)
)


def refusing(tmp_path: Path, *elements: str) -> World:
    world = World("n1", tmp_path, Refusing(*elements), pods=[WEB, API])
    world.list([Namespace("shop", {"kubernetes.io/metadata.name": "shop"}), WEB, API, FAR])
    world.turn()
    assert world.loop.followed
    return world


def goes_on(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.turn(1)


def test_what_the_kernel_never_takes_of_a_policy_keeps_nothing_else_waiting(tmp_path: Path) -> None:
    world = refusing(tmp_path, "192.0.2.66/31")
    world.say(OUTSIDE)
    world.turn()
    assert world.loop.failing and kept(world) == [], "it may be but for now"
    world.say(CLOSED_WEB)
    goes_on(world, 20)
    assert kept(world) == ["outside"] and not world.loop.failing
    assert not passes(world, FAR, API), "it isolates whom it selects"
    assert not passes(world, FAR, WEB), "all else is followed"
    world.say(Deleted("NetworkPolicy", "shop", "web"))
    world.say(replace(OUTSIDE, ingress=(Rule(),)))
    world.turn()
    assert passes(world, FAR, WEB) and passes(world, FAR, API) and kept(world) == []


def test_a_pod_whose_address_the_kernel_never_takes_is_nobodys_peer(tmp_path: Path) -> None:
    world = refusing(tmp_path, "10.2.0.7")
    world.say(FROM_FAR)
    world.turn()
    world.say(replace(FAR, name="odd", uid="u-o", addresses=(parse_address("10.2.0.7"),)))
    world.say(CLOSED_WEB)
    goes_on(world, 20)
    assert kept(world) == ["odd"] and not world.loop.failing
    assert passes(world, FAR, API), "the policies that let it in go on"


def test_what_the_kernel_takes_again_soon_is_not_kept(tmp_path: Path) -> None:
    world = refusing(tmp_path, "192.0.2.66/31")
    world.say(OUTSIDE)
    goes_on(world, 1)
    assert world.loop.failing
    world.kernel.elements = ()  # type: ignore[attr-defined]
    goes_on(world, 20)
    assert not world.loop.failing and kept(world) == []


def test_what_is_refused_without_a_word_is_tried_again(tmp_path: Path) -> None:
    world = refusing(tmp_path)

    def refuse(_: Plan) -> Any:
        raise KernelRejected("no")

    whole, world.kernel.begin = Kernel.begin.__get__(world.kernel), refuse  # type: ignore[method-assign]
    world.say(CLOSED_WEB)
    goes_on(world, 30)
    assert world.loop.failing == "no" and kept(world) == []
    world.kernel.begin = whole  # type: ignore[method-assign]
    goes_on(world, 12)
    assert not world.loop.failing and not passes(world, FAR, WEB)
