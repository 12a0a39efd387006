"""What was heard, against a twin that keeps it all in plain sets and compares them whole."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from compiler.changes import Deleted, Event
from enforcer.cluster.heard import KINDS, Heard
from enforcer.cluster.news import Changed, Finding, Gone, Key, Listed, News, Object, OwnNode, Recovered, Trouble
from policy.errors import Problem
from policy.model import Namespace, NetworkPolicy, Node, Pod
from policy.selector import EVERYTHING

PROBLEM = (Problem("", 0, "Pod", "a/x", "", "odd"),)
NAMES, SPACES = ["x", "y", "z"], ["a", "b"]


def made(kind: str, space: str, name: str, version: int) -> Object:
    match kind:
        case "Pod":
            return Pod(space, name, {"v": str(version)}, uid=f"uid-{version % 2}")
        case "NetworkPolicy":
            return NetworkPolicy(space, name, EVERYTHING, ("ingress",) if version else ("egress",))
        case "Node":
            return OwnNode(Node(name, {"v": str(version)}))
    return Namespace(name, {"v": str(version)})


def key_of(found: Object) -> Key:
    return Key("" if isinstance(found, Namespace | OwnNode) else found.namespace, found.name)


def message(draw: Random) -> News:
    kind = draw.choice(KINDS)

    def one() -> Object:
        return made(kind, draw.choice(SPACES), draw.choice(NAMES), draw.randrange(4))

    def odd(key: Key | None) -> Finding:
        return Finding(key, PROBLEM, kept=True)

    match draw.randrange(10):
        case 0 | 1 | 2 | 3:
            return Changed(kind, one())
        case 4 | 5:
            return Changed(kind, Gone(key_of(one()), draw.choice(["", "uid-0", "uid-1"])))
        case 6:
            return Changed(kind, None, odd(draw.choice([None, key_of(one()), key_of(one())])))
        case 7:
            return draw.choice([Trouble(kind, "no", 1.0), Recovered(kind)])
    found = {key_of(each): each for each in (one() for _ in range(draw.randrange(6)))}
    key = draw.choice([None, *(key_of(one()) for _ in range(5))])
    kept = (odd(key),) if draw.random() < 0.3 and key not in found else ()
    return Listed(kind, tuple(found.values()), kept)


class Twin:
    """The same by the book: every message builds the whole state anew."""

    def __init__(self) -> None:
        self.state: dict[tuple[str, Key], Object] = {}
        self.odd: set[tuple[str, Key | None]] = set()
        self.listed: set[str] = set()

    def take(self, message: News) -> None:
        match message:
            case Listed(kind, objects, findings):
                kept = {finding.key for finding in findings}
                stays = {
                    at: found for at, found in self.state.items() if at[0] != kind or at[1] in kept or None in kept
                }
                self.state = {**stays, **{(kind, key_of(found)): found for found in objects}}
                self.odd = {at for at in self.odd if at[0] != kind} | {(kind, key) for key in kept}
                self.listed.add(kind)
            case Changed(kind, Gone(key, uid), _):
                held = self.state.get((kind, key))
                older = isinstance(held, Pod) and uid and held.uid != uid and (kind, key) not in self.odd
                if not older:
                    self.state = {at: found for at, found in self.state.items() if at != (kind, key)}
                    self.odd.discard((kind, key))
            case Changed(kind, None, Finding(key, _, _)):
                self.odd |= {(kind, key)} if key else set()
            case Changed(kind, found, _) if found is not None:
                self.state = {**self.state, (kind, key_of(found)): found}  # type: ignore[arg-type]
                self.odd.discard((kind, key_of(found)))  # type: ignore[arg-type]


def follow(told: dict[tuple[str, Key], Object], events: Iterable[Event]) -> None:
    """As an index does."""
    for event in events:
        if isinstance(event, Deleted):
            del told[event.kind, Key(event.namespace, event.name)]
        else:
            told[type(event).__name__, key_of(event)] = event


@pytest.mark.parametrize("seed", range(300))
def test_whoever_follows_the_events_knows_what_the_twin_knows(seed: int) -> None:
    draw, heard, twin = Random(seed), Heard(), Twin()
    told: dict[tuple[str, Key], Object] = {}
    for _ in range(60):
        heard_now = message(draw)
        events = heard.take(heard_now)
        twin.take(heard_now)
        assert heard.synced == (twin.listed == set(KINDS))
        assert heard.synced or not events, "nothing before everything was listed"
        follow(told, events)
        if heard.synced:
            assert told == {at: found for at, found in twin.state.items() if at[0] != "Node"}
        assert {(kind, key_of(found)): found for kind in KINDS for found in heard.objects(kind)} == twin.state
        assert {(kind, key) for kind in KINDS for key in heard.findings[kind]} == twin.odd


def synced(*objects: Object) -> Heard:
    heard = Heard()
    for kind in KINDS:
        heard.take(Listed(kind, tuple(found for found in objects if type(found).__name__ == kind)))
    return heard


def test_everything_comes_with_the_last_list() -> None:
    heard = Heard()
    pod, space = Pod("a", "x", {}), Namespace("a", {})
    assert heard.take(Listed("Pod", (pod,))) == []
    assert heard.take(Changed("Namespace", space)) == []
    assert heard.waits_for == ("Namespace", "NetworkPolicy", "Node")
    assert heard.take(Listed("NetworkPolicy", ())) == heard.take(Listed("Namespace", (space,))) == []
    assert heard.take(Listed("Node", ())) == [space, pod]


def test_a_relist_says_only_what_differs() -> None:
    stays, goes, changes = Pod("a", "x", {}), Pod("a", "y", {}), Pod("a", "z", {})
    heard = synced(stays, goes, changes)
    now = Pod("a", "z", {"new": "1"})
    assert heard.take(Listed("Pod", (Pod("a", "x", {}), now))) == [now, Deleted("Pod", "a", "y")]
    assert heard.take(Listed("Pod", (now, stays))) == []


def test_what_a_list_cannot_read_stays() -> None:
    pod, other = Pod("a", "x", {}), Pod("a", "y", {})
    heard = synced(pod, other)
    assert heard.take(Listed("Pod", (), (Finding(Key("a", "x"), PROBLEM, True),))) == [Deleted("Pod", "a", "y")]
    assert heard.take(Listed("Pod", (), (Finding(None, PROBLEM, True),))) == []
    assert list(heard.objects("Pod")) == [pod]


def test_the_late_end_of_an_earlier_pod_of_that_name_does_not_end_the_new_one() -> None:
    heard = synced(Pod("a", "x", {}, uid="old"))
    new = Pod("a", "x", {}, uid="new")
    assert heard.take(Changed("Pod", new)) == [new]
    assert heard.take(Changed("Pod", Gone(Key("a", "x"), "old"))) == []
    assert heard.take(Changed("Pod", Gone(Key("a", "x"), "new"))) == [Deleted("Pod", "a", "x")]


def test_the_end_of_a_pod_that_could_not_be_read_ends_what_was_known() -> None:
    heard = synced(Pod("a", "x", {}, uid="old"))
    heard.take(Changed("Pod", None, Finding(Key("a", "x"), PROBLEM, True)))
    assert heard.take(Changed("Pod", Gone(Key("a", "x"), "new"))) == [Deleted("Pod", "a", "x")]
    assert not heard.findings["Pod"]


def test_the_own_node_changes_without_events() -> None:
    heard = synced()
    assert heard.node is None
    node = OwnNode(Node("n1", {}), annotations={"a": "b"})
    assert heard.take(Changed("Node", node)) == [] and heard.node == node
    assert heard.take(Changed("Node", Gone(Key("", "n1")))) == [] and heard.node is None


def test_troubles_are_those_of_now() -> None:
    heard = synced()
    trouble = Trouble("Pod", "list pods: 403 Forbidden", 1.0, 403)
    heard.take(trouble)
    assert heard.troubles == {"Pod": trouble} and trouble.forbidden
    heard.take(Recovered("Pod"))
    assert not heard.troubles
