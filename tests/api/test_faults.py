"""What a bad day of the API server leaves: the same as a fresh list would give, and few requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enforcer.cluster.news import Changed, Listed, Recovered, Trouble
from enforcer.cluster.pace import Pace
from policy.model import Pod
from tests.api.follow import Follower
from tests.api.history import NAMESPACES, PODS, POLICIES, History, namespace, pod, policy, small_cluster
from tests.api.server import Fault, Server, Talk, status_body


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(small_cluster()) as made:
        yield made


@pytest.fixture
def follower(server: Server, tmp_path: Path) -> Iterator[Follower]:
    with Follower(server, tmp_path) as made:
        yield made


def stir(history: History, round_: int = 0) -> None:
    """Something of everything that can happen to objects."""
    history.put(PODS, pod("a", "p0", "u0", "10.0.0.1", app="db", round=str(round_)))
    history.delete(PODS, ("b", "p1"))
    history.put(PODS, pod("b", "p1", f"again-{round_}", "10.0.0.99", app="web"))
    history.put(PODS, pod("a", f"new-{round_}", "n", f"10.0.1.{round_ + 1}"))
    history.put(NAMESPACES, namespace("b", team=f"other-{round_}"))
    history.put(POLICIES, policy("b", f"more-{round_}", app="db"))


def as_lines(then: Callable[[Talk, Iterator[bytes]], None]) -> Fault:
    def fault(talk: Talk) -> None:
        talk.start_watch()
        then(talk, talk.lines())

    return fault


def half_line(talk: Talk, lines: Iterator[bytes]) -> None:
    talk.chunk(next(lines))
    line = next(lines)
    talk.chunk(line[: len(line) // 2])
    talk.end()


def half_line_and_reset(talk: Talk, lines: Iterator[bytes]) -> None:
    line = next(lines)
    talk.chunk(line[: len(line) // 2])
    talk.reset()


def broken_chunk(talk: Talk, lines: Iterator[bytes]) -> None:
    talk.chunk(next(lines))
    line = next(lines)
    talk.send(b"%x\r\n%s" % (len(line) + 100, line))
    talk.connection.close()


def no_chunk_at_all(talk: Talk, lines: Iterator[bytes]) -> None:
    talk.chunk(next(lines))
    talk.send(b"this is no length\r\n")
    talk.hang(5)


def crumbs(talk: Talk, lines: Iterator[bytes]) -> None:
    """A few bytes at a time, over chunks of any size."""
    data = b"".join(next(lines) for _ in range(3))
    for start in range(0, len(data), 7):
        talk.chunk(data[start : start + 7])
    for line in lines:
        talk.chunk(line)


def slow_bytes(talk: Talk, lines: Iterator[bytes]) -> None:
    line = next(lines)
    talk.send(b"%x\r\n" % len(line))
    for start in range(0, len(line), 100):
        talk.send(line[start : start + 100])
        time.sleep(0.02)
    talk.send(b"\r\n")
    for rest in lines:
        talk.chunk(rest)


def twice(talk: Talk, lines: Iterator[bytes]) -> None:
    seen: list[bytes] = []
    for line in lines:
        seen.append(line)
        talk.chunk(line + line)
        if len(seen) == 4:
            talk.chunk(b"".join(seen))


def reordered(talk: Talk, lines: Iterator[bytes]) -> None:
    """The old pod's end is heard after the new one's beginning; what different objects did, the other way round."""
    first, old_goes, new_comes, other = (next(lines) for _ in range(4))
    talk.chunk(other + new_comes + old_goes + first)
    for line in lines:
        talk.chunk(line)


def garbage_between(talk: Talk, lines: Iterator[bytes]) -> None:
    talk.chunk(next(lines))
    talk.chunk(b"<html>502 Bad Gateway</html>\n")
    for line in lines:
        talk.chunk(line)


def garbage_instead(talk: Talk, lines: Iterator[bytes]) -> None:
    talk.chunk(next(lines))
    talk.chunk(next(lines)[:-40].replace(b"\n", b"") + b"\n")
    for line in lines:
        talk.chunk(line)


def unknown_type(talk: Talk, lines: Iterator[bytes]) -> None:
    talk.chunk(next(lines).replace(b'"MODIFIED"', b'"TELEPORTED"').replace(b'"ADDED"', b'"TELEPORTED"'))
    for line in lines:
        talk.chunk(line)


def empty_lines(talk: Talk, lines: Iterator[bytes]) -> None:
    for line in lines:
        talk.chunk(b"\n\r\n" + line)


def error_event(status: int, reason: str) -> Fault:
    def fault(talk: Talk, lines: Iterator[bytes]) -> None:
        talk.chunk(next(lines))
        talk.chunk(b'{"type":"ERROR","object":' + status_body(status, reason, "as told") + b"}\n")
        talk.end()

    return as_lines(fault)


def refused(status: int, reason: str, cause: str = "", **headers: str) -> Fault:
    return lambda talk: talk.refuse(status, reason, "as told", cause, **headers)


def ends_at_once(talk: Talk) -> None:
    talk.start_watch()
    talk.end()


WATCH_FAULTS: dict[str, Fault] = {
    "half a line": as_lines(half_line),
    "half a line, then a reset": as_lines(half_line_and_reset),
    "a chunk that breaks off": as_lines(broken_chunk),
    "no chunk": as_lines(no_chunk_at_all),
    "crumbs": as_lines(crumbs),
    "slow bytes": as_lines(slow_bytes),
    "duplicates": as_lines(twice),
    "another order": as_lines(reordered),
    "garbage between lines": as_lines(garbage_between),
    "garbage for a line": as_lines(garbage_instead),
    "an unknown type": as_lines(unknown_type),
    "empty lines": as_lines(empty_lines),
    "ERROR 410": error_event(410, "Expired"),
    "ERROR 500": error_event(500, "InternalError"),
    "ERROR 403": error_event(403, "Forbidden"),
    "ERROR 0": error_event(0, "Nothing"),
    "410": refused(410, "Gone"),
    "400": refused(400, "BadRequest"),
    "403": refused(403, "Forbidden"),
    "429": refused(429, "TooManyRequests", Retry_After="0"),
    "500": refused(500, "InternalError"),
    "503": refused(503, "ServiceUnavailable"),
    "504, a version too large": refused(504, "Timeout", "ResourceVersionTooLarge"),
    "302": refused(302, "Found", Location="http://127.0.0.1:1/"),
    "reset before the answer": lambda talk: talk.reset(),
    "nothing at all": lambda talk: talk.hang(5),
    "only a head": as_lines(lambda talk, _: talk.hang(5)),
    "an end at once": ends_at_once,
}


@pytest.mark.parametrize("fault", WATCH_FAULTS.values(), ids=WATCH_FAULTS.keys())
def test_after_a_fault_of_a_watch_the_state_is_that_of_a_fresh_list(
    server: Server, follower: Follower, fault: Fault
) -> None:
    for title in ("watch pods", "watch namespaces", "watch networkpolicies"):
        server.faults[title].extend([fault, fault])
    follower.settle()
    stir(server.history, 0)
    follower.settle()
    stir(server.history, 1)
    follower.settle()
    # Two faults are two more watches, and perhaps two lists of three pages.
    assert server.requests["watch pods"] <= 6
    assert server.requests["list pods"] <= 12


LIST_FAULTS: dict[str, Fault] = {
    "no JSON": lambda talk: talk.whole(200, b"<html>"),
    "JSON that is no list": lambda talk: talk.whole(200, b'{"kind":"Status","metadata":{}}'),
    "no version": lambda talk: talk.whole(200, b'{"kind":"PodList","metadata":{},"items":[]}'),
    "half a page": lambda talk: talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{") or talk.reset(),
    "no HTTP": lambda talk: talk.send(b"SSH-2.0-OpenSSH\r\n") or talk.reset(),
    "403": refused(403, "Forbidden"),
    "410": refused(410, "Expired"),
    "429": refused(429, "TooManyRequests", Retry_After="0"),
    "500": refused(500, "InternalError"),
    "reset": lambda talk: talk.reset(),
    "nothing at all": lambda talk: talk.hang(5),
    "the same page again": lambda talk: talk.whole(
        200, b'{"kind":"PodList","metadata":{"resourceVersion":"1","continue":"%s"},"items":[]}' % b"same"
    ),
}


@pytest.mark.parametrize("fault", LIST_FAULTS.values(), ids=LIST_FAULTS.keys())
@pytest.mark.parametrize("at", [0, 1])
def test_after_a_fault_of_a_list_the_state_is_that_of_a_fresh_one(
    server: Server, tmp_path: Path, fault: Fault, at: int
) -> None:
    server.faults["list pods"].extend([Talk.answer] * at + [fault, fault])
    with Follower(server, tmp_path) as follower:
        follower.settle()
        stir(server.history)
        follower.settle()
    assert server.requests["list pods"] <= 14
    assert not follower.heard.troubles


def test_a_kind_that_is_forbidden_keeps_everything_waiting_and_says_which(server: Server, tmp_path: Path) -> None:
    server.always["list networkpolicies"] = refused(403, "Forbidden")
    with Follower(server, tmp_path) as follower:
        follower.until(lambda: follower.heard.waits_for == ("NetworkPolicy",) and bool(follower.heard.troubles))
        trouble = follower.heard.troubles["NetworkPolicy"]
        assert trouble.forbidden
        assert trouble.reason == "list networkpolicies.networking.k8s.io: 403 Forbidden: as told"
        assert not follower.index.pods
        del server.always["list networkpolicies"]
        follower.settle()
        assert not follower.heard.troubles
        assert [type(each) for each in follower.said("NetworkPolicy", Trouble | Recovered)] == [Trouble, Recovered]  # type: ignore[arg-type]


def test_a_permission_that_is_lost_leaves_what_was_known(server: Server, follower: Follower) -> None:
    follower.settle()
    server.always["watch pods"] = server.always["list pods"] = refused(403, "Forbidden")
    server.cut_all()
    follower.until(lambda: "Pod" in follower.heard.troubles)
    before = server.requests["watch pods"]
    time.sleep(0.5)
    follower.drain()
    assert len(list(follower.heard.objects("Pod"))) == 7
    assert server.requests["watch pods"] - before < 30
    assert server.requests["list pods"] == 3, "no list can help against a lost permission"
    server.always.clear()
    follower.until(lambda: not follower.heard.troubles)
    follower.settle()


def test_no_server_at_all_is_trouble_and_then_it_comes(tmp_path: Path) -> None:
    history = small_cluster()
    with Server(history) as gone:
        port = gone.port
    with Follower(gone, tmp_path) as follower:
        follower.until(lambda: set(follower.heard.troubles) == {"Pod", "Namespace", "NetworkPolicy", "Node"})
        assert "Connection refused" in follower.heard.troubles["Pod"].reason
        assert not follower.heard.synced
        with Server(history, port=port):
            follower.settle()
            follower.until(lambda: not follower.heard.troubles)


def test_an_outage_in_which_history_is_compacted_ends_in_one_list(server: Server, follower: Follower) -> None:
    follower.settle()
    lists = server.requests["list pods"]
    server.always["watch pods"] = refused(503, "ServiceUnavailable")
    server.cut_all()
    stir(server.history)
    server.history.compact()
    server.always.clear()
    follower.settle()
    assert server.requests["list pods"] - lists == 3, "three pages"


def test_an_expired_continue_token_starts_the_list_anew_and_then_takes_it_whole(server: Server, tmp_path: Path) -> None:
    expired = refused(410, "Expired")
    server.faults["list pods"].extend([Talk.answer, expired, Talk.answer, expired])
    with Follower(server, tmp_path) as follower:
        follower.settle()
    asked = [talk.query for talk in server.log if talk.title == "list pods"]
    assert [("limit" in query, "continue" in query) for query in asked] == [
        *((True, False), (True, True)) * 2,
        (False, False),
    ]


@pytest.mark.parametrize("cut", [True, False], ids=["connections break", "connections stay"])
def test_an_etcd_restored_to_an_older_version_is_followed_back(server: Server, follower: Follower, cut: bool) -> None:
    """A watch from a version that is not there yet hears nothing, not even bookmarks."""
    follower.settle()
    backup = server.history.saved()
    for round_ in range(3):
        stir(server.history, round_)
    follower.settle()
    server.history.restore(backup)
    if cut:
        server.cut_all()
    server.history.put(PODS, pod("a", "after-the-restore", "x", "10.0.3.3"))
    follower.settle()
    assert server.requests["list pods"] <= 9


def test_a_watch_that_ends_in_time_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.longest_watch = 0.5
    with Follower(server, tmp_path) as follower:
        follower.settle()
        for round_ in range(3):
            stir(server.history, round_)
            follower.settle()
            time.sleep(0.4)
        assert server.requests["list pods"] == 3
        assert not follower.said("Pod", Trouble)


def test_bookmarks_are_where_a_quiet_watch_goes_on(server: Server, follower: Follower) -> None:
    """The history before the last bookmark may go: no list is needed."""
    follower.settle()
    stir(server.history)  # of which the own Node hears nothing
    marks = follower.watchers.watchers[0].counts
    was = marks.bookmarks
    follower.until(lambda: marks.bookmarks > was + 1)
    server.history.compact()
    server.cut_all()
    server.history.put(PODS, pod("a", "later", "x"))
    follower.settle()
    assert server.requests["list nodes"] == 1


def test_an_object_that_cannot_be_decoded_is_named_and_the_rest_goes_on(server: Server, follower: Follower) -> None:
    follower.settle()
    meta = b'"metadata":{"name":"p0","namespace":"a","resourceVersion":"7","labels":{"app":["web"]}}'
    server.history.put_bytes(PODS, ("a", "p0"), b'{"kind":"Pod",' + meta + b"}")
    bad = b'{"metadata":{"name":"bad","namespace":"b"},"spec":{"podSelector":{"matchLabels":{"a":1}},"ingress":[{}]}}'
    server.history.put_bytes(POLICIES, ("b", "bad"), bad)
    server.history.put(PODS, pod("b", "p1", "u1", "10.0.0.77", app="other"))

    def heard() -> bool:
        pods = {found.name: found for found in follower.heard.objects("Pod") if isinstance(found, Pod)}
        return str(pods["p1"].addresses[0]) == "10.0.0.77" and bool(follower.heard.findings["NetworkPolicy"])

    follower.until(heard)
    follower.until(lambda: follower.heard.findings["Pod"])
    pods = {found.name: found for found in follower.heard.objects("Pod") if isinstance(found, Pod)}
    assert pods["p0"].labels == {"app": "web"}, "its last known state"
    (finding,) = follower.heard.findings["Pod"].values()
    assert finding.kept
    assert str(finding.problems[0]).startswith("Pod a/p0: metadata.labels.app: a list, expected text in quotes")
    closing = next(found for found in follower.heard.objects("NetworkPolicy") if found.name == "bad")
    assert closing.subjects.is_everything and not closing.ingress[0].understood  # type: ignore[union-attr]

    server.faults["watch pods"].append(refused(410, "Expired"))
    server.cut_all()
    follower.until(lambda: len(follower.said("Pod", Listed)) == 2)
    assert {found.name for found in follower.heard.objects("Pod")} >= {"p0"}, "a list that can't read it keeps it too"
    server.history.delete(PODS, ("a", "p0"))
    server.history.delete(POLICIES, ("b", "bad"))
    follower.settle()
    assert not follower.heard.findings["Pod"] and not follower.heard.findings["NetworkPolicy"]


def test_garbage_is_reported_once_each_time(server: Server, follower: Follower) -> None:
    follower.settle()
    server.faults["watch pods"].append(as_lines(garbage_between))
    server.cut_all()
    follower.until(lambda: server.requests["watch pods"] == 2)
    stir(server.history)
    follower.settle()
    told = [message for message in follower.said("Pod", Changed) if message.finding]
    assert len(told) == 1 and "not JSON" in str(told[0].finding.problems[0])


@pytest.mark.parametrize("status", [410, 500])
def test_no_answer_is_asked_for_in_a_hot_loop(server: Server, follower: Follower, status: int) -> None:
    """Every list succeeds, and every watch is refused: as for ever, so in half a second."""
    follower.settle()
    server.always["watch pods"] = refused(status, "Whatever")
    server.cut_all()
    before = server.requests["watch pods"]
    time.sleep(0.6)
    # At most two in the time of one longest wait, which here is a tenth of a second on average half.
    assert 2 <= server.requests["watch pods"] - before <= 30
    server.always.clear()
    follower.settle()


def test_watches_that_hear_nothing_end_at_once_when_they_are_told_to(server: Server, tmp_path: Path) -> None:
    patient = Pace()  # 150 s of silence
    server.bookmark_every = 600
    with Follower(server, tmp_path, patient) as follower:
        follower.settle()
        follower.until(lambda: server.requests["watch pods"] == 1)
        began = time.monotonic()
        follower.watchers.stop()
        assert time.monotonic() - began < 1
        assert not any(thread.is_alive() for thread in follower.watchers._threads)
        assert not follower.heard.troubles


def test_a_page_that_fails_does_not_begin_the_list_again(server: Server, tmp_path: Path) -> None:
    busy = refused(503, "ServiceUnavailable")
    server.faults["list pods"].extend([Talk.answer, busy, busy, Talk.answer, busy])
    with Follower(server, tmp_path) as follower:
        follower.settle()
    asked = [talk.query.get("continue", "") for talk in server.log if talk.title == "list pods"]
    first, second = asked[1], asked[4]
    assert first and second and asked == ["", first, first, first, second, second]
