"""Whose an interface is that comes with the address of a pod that is being deleted."""

from __future__ import annotations

from msgspec.structs import replace

from enforcer.attachment.attach import attach
from enforcer.attachment.hostview import HostView
from enforcer.attachment.leaving import WHY, Leaving
from enforcer.kernel.rtnetlink import Link, Route
from policy.cidr import Prefix, parse_address
from policy.model import Pod

ADDRESS = parse_address("10.1.0.1")
POD = Pod("shop", "web-0", {}, uid="first", node="n1", addresses=(ADDRESS,), phase="Running")
ENDING = replace(POD, deleting=True)


def host(index: int = 0, name: str = "veth1") -> HostView:
    """A node where a veth leads to the address, or none does."""
    if not index:
        return HostView()
    link = Link(index, name, "veth", peer=index + 1000, peer_netns=index)
    return HostView({index: link}, frozenset({Route(Prefix(4, ADDRESS.value, 32), 254, (index,))}))


def others(leaving: Leaving, view: HostView, *pods: Pod) -> dict[str, str]:
    return leaving.followed_by_others(view, pods, attach(view, pods))


def test_a_pod_that_stays_may_get_another_interface() -> None:
    """As where its sandbox is made anew."""
    leaving = Leaving()
    for index in (5, 0, 7):
        assert others(leaving, host(index), POD) == {}
    assert others(leaving, host(7), ENDING) == {}, "the last one is its own"


def test_one_that_is_being_deleted_gets_none_however_it_is_named() -> None:
    leaving = Leaving()
    assert others(leaving, host(5), POD) == others(leaving, host(5), ENDING) == {}
    assert others(leaving, host(6, "veth2"), ENDING) == {"shop/web-0": WHY}
    assert others(leaving, host(0), ENDING) == {}
    assert others(leaving, host(7), ENDING) == {"shop/web-0": WHY}


def test_what_a_pod_has_when_it_is_first_seen_is_its_own() -> None:
    leaving = Leaving()
    assert others(leaving, host(5), ENDING) == {}
    assert others(leaving, host(6), ENDING) == {"shop/web-0": WHY}


def test_the_next_pod_of_that_name_is_another_one() -> None:
    leaving = Leaving()
    others(leaving, host(5), POD)
    assert others(leaving, host(6), replace(ENDING, uid="second")) == {}


def test_the_next_agent_knows_by_which_interface_a_pod_was_found() -> None:
    leaving = Leaving()
    others(leaving, host(5), POD)
    after = Leaving(leaving.last)
    assert after.followed_by_others(host(6), [], attach(host(6), []), are_all=False) == {}, "it has heard of no pod yet"
    assert others(after, host(6), ENDING) == {"shop/web-0": WHY}
    assert after.present(host(6), {POD.key: ENDING}) == []
    assert others(Leaving(leaving.last), host(6), POD) == {}, "its sandbox may have been made anew"


def test_who_is_gone_is_forgotten() -> None:
    leaving = Leaving()
    others(leaving, host(5), POD)
    others(leaving, host(5))
    assert others(leaving, host(6), ENDING) == {}


def test_one_that_is_being_deleted_is_gone_with_its_interface() -> None:
    leaving = Leaving()
    for view, pod, there in ((host(5), POD, True), (host(0), POD, True), (host(5), ENDING, True)):
        others(leaving, view, pod)
        assert leaving.present(view, {pod.key: pod}) == [pod] * there
    for view in (host(0), host(6), host(6, "veth2")):
        others(leaving, view, ENDING)
        assert leaving.present(view, {ENDING.key: ENDING}) == []


def test_one_that_never_had_an_interface_is_not_gone() -> None:
    leaving = Leaving()
    others(leaving, host(0), ENDING)
    assert leaving.present(host(0), {ENDING.key: ENDING}) == [ENDING]
