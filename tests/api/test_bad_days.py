"""Histories by chance with faults by chance: afterwards everything is as a fresh list has it, and compiled from
nothing. And how often the server is asked while it fails."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from compiler.index import Index
from enforcer.cluster.heard import Heard
from enforcer.cluster.news import Listed, News, Recovered, Trouble
from enforcer.cluster.pace import USUAL, Pace
from enforcer.cluster.watch import Watcher
from policy.errors import ApiRefused, ApiUnreachable, PodfenceError
from tests.api.chaos import Chaos, Clock, Pieces
from tests.api.follow import ALL, compiled, fresh, meaning, resource_of, state
from tests.api.history import NAMESPACES, NODES, PODS, POLICIES, namespace, node, pod, policy, small_cluster

SMALL_PAGES = Pace(page=3)


class Day:
    """One agent and its server."""

    def __init__(self, seed: int) -> None:
        self.draw = Random(seed)
        self.clock = Clock()
        self.history = small_cluster(self.draw.randrange(9))
        self.server = Chaos(self.history, self.draw, self.clock, self.happens)
        self.heard, self.index = Heard(), Index()
        self.watchers = [
            Watcher(each, self.server, self.put, SMALL_PAGES, self.clock, self.clock.wait, self.draw.random)
            for each in ALL
        ]
        self.busy = True
        self.gone_back = False

    def put(self, message: News) -> None:
        self.index.apply(self.heard.take(message))

    def turn(self) -> None:
        self.draw.choice(self.watchers).turn()

    def happens(self) -> None:
        """To the objects; only now and then."""
        draw, history = self.draw, self.history
        if not self.busy or draw.random() < 0.4:
            return
        space, name, version = draw.choice("abc"), f"p{draw.randrange(9)}", str(draw.randrange(3))
        match draw.randrange(9):
            case 0 | 1 | 2:
                held = history.objects[PODS].get((space, name))
                uid = "kept" if held else f"uid-{history.number}"
                history.put(PODS, pod(space, name, uid, f"10.0.{draw.randrange(3)}.{draw.randrange(9)}", app=version))
            case 3:
                if (space, name) in history.objects[PODS]:
                    history.delete(PODS, (space, name))
                    if draw.random() < 0.5:
                        history.put(PODS, pod(space, name, f"uid-{history.number}", app=version))
            case 4:
                history.put(NAMESPACES, namespace(space, v=version))
            case 5:
                if ("", space) in history.objects[NAMESPACES]:
                    history.delete(NAMESPACES, ("", space))
            case 6:
                history.put(POLICIES, policy(space, f"q{version}", app=version))
            case 7:
                if (space, f"q{version}") in history.objects[POLICIES]:
                    history.delete(POLICIES, (space, f"q{version}"))
            case 8:
                history.put(NODES, node("n1", v=version))
        if draw.random() < 0.03:
            history.compact()

    def go_back(self) -> None:
        """To a backup; until all watches know it, nothing else happens, since a server that has caught up with the
        old number before anyone came back can't be told from one that never went back."""
        backup = self.history.saved()
        for _ in range(5):
            self.turn()
        self.history.restore(backup)
        self.busy, self.server.bad = False, 0
        for watcher in self.watchers:
            for _ in range(3):
                watcher.turn()
        self.busy, self.server.bad = True, 0.5

    def ends_well(self) -> None:
        self.busy, self.server.bad = False, 0
        asked = len(self.server.asked)
        for watcher in self.watchers:
            for _ in range(4):
                watcher.turn()
        assert len(self.server.asked) - asked < 80
        assert self.heard.synced
        assert state(self.heard) == state(fresh(self.history))
        assert meaning(self.index) == meaning(compiled(fresh(self.history)))
        assert not self.heard.troubles


@pytest.mark.parametrize("seed", range(150))
def test_after_any_day_the_state_is_compiled_from_nothing(seed: int) -> None:
    day = Day(seed)
    for number in range(60):
        day.turn()
        if number == 30 and seed % 3 == 0:
            day.go_back()
    day.ends_well()


class Failing:
    """A server that always does the same."""

    def __init__(self, clock: Clock, listed: bytes | Exception, watched: list[bytes] | Exception) -> None:
        self.asked: list[tuple[float, dict[str, str]]] = []
        self.clock, self.listed, self.watched = clock, listed, watched

    def get(self, what: str, path: str, query: object = (), verb: str = "get") -> bytes:
        self.asked.append((self.clock.now, dict(query)))  # type: ignore[call-overload]
        if isinstance(self.listed, Exception):
            raise self.listed
        return self.listed

    def stream(self, what: str, path: str, query: object, silence: float) -> object:
        from contextlib import nullcontext

        self.asked.append((self.clock.now, dict(query)))  # type: ignore[call-overload]
        if isinstance(self.watched, Exception):
            raise self.watched
        return nullcontext(Pieces(iter(self.watched)))


PAGE = b'{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[]}'
BOOKMARK = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"2"}}}\n'
GONE = b'{"type":"ERROR","object":{"code":410}}\n'
REFUSED = ApiRefused("watch", "pods", 500, "Oops")


def watcher_of(server: Failing, clock: Clock, put: Callable[[News], None], seed: int = 1) -> Watcher:
    return Watcher(resource_of("Pod"), server, put, USUAL, clock, clock.wait, Random(seed).random)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("listed", "watched"),
    [
        (ApiUnreachable("list", "pods", "no connection"), []),
        (ApiRefused("list", "pods", 403, "Forbidden"), []),
        (ApiRefused("list", "pods", 503, "Unavailable"), []),
        (b"<html>", []),
        (PAGE, REFUSED),
        (PAGE, ApiRefused("watch", "pods", 410, "Gone")),
        (PAGE, ApiRefused("watch", "pods", 403, "Forbidden")),
        (PAGE, []),
        (PAGE, [GONE]),
        (PAGE, [BOOKMARK, GONE]),
        (PAGE, [b"<html>\n"]),
        (PAGE, [BOOKMARK, b"<html>\n"]),
        (PAGE, RuntimeError("a defect")),
        (RuntimeError("a defect"), []),
    ],
)
def test_a_server_that_fails_for_ever_is_asked_seldom_and_complained_of_little(
    listed: bytes | Exception, watched: list[bytes] | Exception
) -> None:
    clock, news = Clock(), list[News]()
    server = Failing(clock, listed, watched)
    watcher = watcher_of(server, clock, news.append)
    while clock.now < 3600:
        watcher.turn()
    # On average half of thirty seconds, or of four where there is news, and with each try perhaps a list before.
    news_too = isinstance(watched, list) and BOOKMARK in watched and GONE not in watched
    assert 100 < len(server.asked) < (1.2 * 3600 / 2 if news_too else 2.5 * 3600 / 15 + 20)
    assert len([each for each in news if not isinstance(each, Listed)]) < 2 * len(server.asked) + 2


def test_a_watch_that_brings_news_and_ends_soon_is_resumed_soon_but_not_at_once() -> None:
    clock, news = Clock(), list[News]()
    server = Failing(clock, PAGE, [BOOKMARK])
    watcher = watcher_of(server, clock, news.append)
    for _ in range(200):
        watcher.turn()
    assert all(0.1 <= wait <= 4.1 for wait in clock.waits) and len(clock.waits) == 199
    assert {query.get("resourceVersion") for _, query in server.asked[2:]} == {"2"}


def test_garbage_that_comes_again_takes_a_list() -> None:
    clock = Clock()
    server = Failing(clock, PAGE, [b"<html>\n"])
    watcher = watcher_of(server, clock, lambda _: None)
    for _ in range(6):
        watcher.turn()
    assert ["watch" if "watch" in query else "list" for _, query in server.asked] == ["list", "watch", "watch"] * 2


def test_waits_double_up_to_a_ceiling_by_chance() -> None:
    longest = [max(USUAL.delay(failures, 0, Random(seed).random) for seed in range(300)) for failures in range(9)]
    least = [min(USUAL.delay(failures, 0, Random(seed).random) for seed in range(300)) for failures in range(9)]
    assert all(one < other for one, other in pairwise(longest[:6]))
    assert 28 < longest[-1] <= USUAL.least_wait + USUAL.most_wait
    assert all(USUAL.least_wait <= wait < 1 for wait in least)
    assert USUAL.delay(10_000, 0, lambda: 1.0) == USUAL.least_wait + USUAL.most_wait


def test_retry_after_is_honoured_within_reason() -> None:
    clock = Clock()
    busy = ApiRefused("list", "pods", 429, "TooManyRequests", retry_after=20)
    watcher_of(Failing(clock, busy, []), clock, lambda _: None).turn()
    assert 20 <= clock.waits[0] <= 22
    busy.retry_after = 10_000
    watcher_of(Failing(clock, busy, []), clock, lambda _: None).turn()
    assert USUAL.longest_retry_after <= clock.waits[1] <= USUAL.longest_retry_after * 1.1


def test_a_thousand_nodes_ask_for_watches_of_different_lengths() -> None:
    lengths = []
    for seed in range(300):
        clock = Clock()
        server = Failing(clock, PAGE, [BOOKMARK])
        watcher = watcher_of(server, clock, lambda _: None, seed)
        watcher.turn()
        watcher.turn()
        lengths.append(int(server.asked[1][1]["timeoutSeconds"]))
        assert server.asked[1][1]["allowWatchBookmarks"] == "true"
    assert 300 <= min(lengths) < 310 and 590 < max(lengths) <= 600


def test_trouble_is_told_once_with_the_time_of_the_last_good_word() -> None:
    clock, news = Clock(), list[News]()
    server = Failing(clock, PAGE, [BOOKMARK])
    watcher = watcher_of(server, clock, news.append)
    watcher.turn()
    clock.now = 100
    watcher.turn()
    server.watched = ApiUnreachable("watch", "pods", "no connection: Connection refused")
    for _ in range(5):
        watcher.turn()
    server.watched = [BOOKMARK]
    watcher.turn()
    listed, trouble, recovered = news
    assert isinstance(listed, Listed)
    assert trouble == Trouble("Pod", "watch pods: no connection: Connection refused", 100)
    assert recovered == Recovered("Pod")


def test_a_watch_that_goes_on_beyond_its_time_is_ended() -> None:
    clock, news = Clock(), list[News]()

    class Endless(Failing):
        def stream(self, *args: object) -> object:  # type: ignore[override]
            from contextlib import nullcontext

            def lines() -> object:
                while True:
                    clock.now += 60
                    yield BOOKMARK

            self.asked.append((clock.now, {}))
            return nullcontext(Pieces(lines()))  # type: ignore[arg-type]

    watcher = watcher_of(Endless(clock, PAGE, []), clock, news.append)
    watcher.turn()
    watcher.turn()
    assert clock.now < 600 + USUAL.grace + 120
    assert any(isinstance(each, Trouble) and "beyond its time" in each.reason for each in news)


def test_errors_are_of_the_tree() -> None:
    assert issubclass(ApiRefused, PodfenceError) and ApiRefused.exit_code == 5
