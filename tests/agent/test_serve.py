"""What answers for the agent: HTTP for kubelet and Prometheus, and the local socket for root."""

from __future__ import annotations

import socket
import stat
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from enforcer.agent.board import AgentStatus, Board
from enforcer.agent.metrics import Metrics
from enforcer.agent.serve_http import HttpServer, Sources, parse_listen
from enforcer.agent.serve_local import LocalServer, ask
from enforcer.keeping.family import FamilyCounts
from enforcer.readback.status import Denied
from policy.errors import HostRefused, UsageError

FIRST = AgentStatus(version="0.1.0", node="n1", backend="nft", mode="enforce")


class World:
    def __init__(self) -> None:
        self.board = Board(FIRST)
        self.ails = ""
        self.denied = [Denied("shop/web", "10.0.0.1", "ingress", 3), Denied("shop/web", "fd00::1", "ingress", 4)]
        self.metrics = Metrics(lambda: self.board.status, lambda: self.denied)
        self.sources = Sources(lambda: self.board.status, lambda: self.ails, self.metrics.page)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with HttpServer("127.0.0.1:0", world.sources) as server:
        yield f"http://127.0.0.1:{server.port}"


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_healthz_follows_the_loop(world: World, url: str) -> None:
    assert get(f"{url}/healthz")[0] == 200
    world.ails = "the loop has not turned for too long"
    assert get(f"{url}/healthz")[0] == 503


def test_who_connects_and_says_nothing_keeps_no_probe_away(url: str) -> None:
    """There was a thread for each of them."""
    port = int(url.rpartition(":")[2])
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(150)]
    for number, each in enumerate(silent):
        if number % 2:
            with suppress(OSError):
                each.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
    assert get(f"{url}/healthz")[0] == 200
    assert threading.active_count() - before <= 64
    for each in silent:
        each.close()


def test_readyz_says_what_it_waits_for(world: World, url: str) -> None:
    assert get(f"{url}/readyz") == (503, "waits for the first look at the cluster\n")
    world.board.status = replace(FIRST, waits_for=())
    assert get(f"{url}/readyz") == (200, "ok\n")


def test_other_paths_are_not_found(url: str) -> None:
    assert get(f"{url}/debug")[0] == 404


@pytest.mark.parametrize(("accept", "parse"), [("text/plain", plain), ("application/openmetrics-text", openmetrics)])
def test_metrics_are_what_prometheus_reads(world: World, url: str, accept: str, parse: Any) -> None:
    world.board.status = replace(FIRST, waits_for=(), policies=7, kernel={4: FamilyCounts(9, 30, 5, 60)})
    world.metrics.event_to_kernel.observe(0.003)
    world.metrics.watch_restarts.labels("Pod").inc()
    code, text = get(f"{url}/metrics", Accept=accept)
    found = {(s.name, *s.labels.values()): s.value for family in parse(text) for s in family.samples}
    assert code == 200
    assert found["podfence_ready",] == 1 and found["podfence_policies",] == 7
    assert found["podfence_rules", "ipv4"] == 30
    assert found["podfence_mode", "enforce"] == 1 and found["podfence_mode", "audit"] == 0
    assert found["podfence_denied_packets_total", "ingress", "shop", "web"] == 7
    assert found["podfence_event_to_kernel_seconds_count",] == 1
    assert found["podfence_watch_restarts_total", "Pod"] == 1


def test_an_address_in_use_is_one_line(world: World) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostRefused, match=f"--listen 127.0.0.1:{port}: Address already in use"):
            HttpServer(f"127.0.0.1:{port}", world.sources)


def test_listen_is_read() -> None:
    assert parse_listen("127.0.0.1:9470") == ("127.0.0.1", 9470)
    assert parse_listen("[::1]:1") == ("::1", 1)
    assert parse_listen(":80") == ("", 80)
    for wrong in ("9470", "host:", "host:x", "host:70000", "host:٣"):
        with pytest.raises(UsageError, match="--listen"):
            parse_listen(wrong)


def answers(question: dict[str, Any]) -> Iterable[object]:
    if question.get("ask") == "count":
        yield from ({"number": number} for number in range(3))
    else:
        yield {"error": f"nobody knows {question.get('ask')}"}


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[str]:
    with LocalServer(str(tmp_path), answers):
        yield str(tmp_path)


def test_a_question_has_lines_for_an_answer(state_dir: str) -> None:
    assert [each["number"] for each in ask(state_dir, {"ask": "count"})] == [0, 1, 2]


def test_a_refusal_is_one_line(state_dir: str) -> None:
    with pytest.raises(HostRefused, match="nobody knows what"):
        list(ask(state_dir, {"ask": "what"}))


def test_nobody_else_may_open_the_socket(state_dir: str) -> None:
    mode = (Path(state_dir) / "agent.sock").stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600


def test_who_is_not_one_of_the_users_gets_no_answer(tmp_path: Path) -> None:
    with LocalServer(str(tmp_path), answers, users=frozenset()), pytest.raises(HostRefused):
        list(ask(str(tmp_path), {"ask": "count"}))


@pytest.mark.parametrize("question", [b"\n", b"[1]\n", b"\xff\xfe\n", b"{" * 5000])
def test_what_is_no_question_is_answered_so_and_harms_nobody(state_dir: str, question: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(Path(state_dir) / "agent.sock"))
        connection.sendall(question)
        connection.shutdown(socket.SHUT_WR)
        assert b"error" in connection.recv(4096)
    assert len(list(ask(state_dir, {"ask": "count"}))) == 3


def test_without_an_agent_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostRefused, match="no agent answers"):
        list(ask(str(tmp_path), {"ask": "count"}))


def test_many_ask_at_once(state_dir: str) -> None:
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(list(ask(state_dir, {"ask": "count"}))))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == [3] * 20
