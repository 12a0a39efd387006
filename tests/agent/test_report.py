"""What the agent tells the API server: once, until it is heard, and nothing that is overtaken."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from enforcer.agent.backoff import Backoff
from enforcer.agent.report import About, Gate, Reporter, Said, event_body, taint_patch
from policy.errors import ApiRefused, ApiUnreachable

NOT_UNDERSTOOD = Said(About("NetworkPolicy", "shop", "api"), "NotUnderstood", "spec.ingress[0]: unknown field")
TAINT = {"key": "podfence.io/not-ready", "effect": "NoSchedule"}


class FakeApi:
    """Answers from `answers`, in order, then with nothing; an error among them is raised. Keeps what was sent."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.answers = list(answers)
        self.calmed: Callable[[], None] = lambda: None

    def get(self, what: str, path: str) -> bytes:
        return self._answer("GET", path, None)

    def send(self, verb: str, what: str, method: str, path: str, body: bytes, content_type: str) -> bytes:
        return self._answer(method, path, msgspec.json.decode(body))

    def _answer(self, method: str, path: str, body: Any) -> bytes:
        self.sent.append((method, path, body))
        answer = self.answers.pop(0) if self.answers else b"{}"
        if isinstance(answer, Exception):
            raise answer
        return answer


def reported(api: FakeApi, *, until: int, say: Callable[[Reporter], None]) -> list[tuple[str, str, Any]]:
    """What is sent, ended after `until` requests."""
    warnings: list[str] = []
    reporter = Reporter(api, "n1", True, lambda: "2026-01-01T00:00:00Z", warnings.append)
    say(reporter)
    thread = threading.Thread(target=reporter.run, args=[Backoff(0.001, 0.01)], daemon=True)
    thread.start()
    for _ in range(1000):
        if len(api.sent) >= until:
            break
        thread.join(0.005)
    reporter.end()
    thread.join(5)
    assert not thread.is_alive() and len(api.sent) == until, (api.sent, warnings)
    return api.sent


def test_equal_events_are_said_once() -> None:
    def say(reporter: Reporter) -> None:
        for _ in range(3):
            reporter.say(NOT_UNDERSTOOD)

    ((method, path, body),) = reported(FakeApi(), until=1, say=say)
    assert (method, path) == ("POST", "/api/v1/namespaces/shop/events")
    assert body["involvedObject"] == {
        "kind": "NetworkPolicy", "apiVersion": "networking.k8s.io/v1", "namespace": "shop", "name": "api",
    }  # fmt: skip
    assert body["type"] == "Warning" and body["message"] == NOT_UNDERSTOOD.message


def test_no_more_is_kept_of_an_event_than_is_said() -> None:
    def say(reporter: Reporter) -> None:
        for number in range(400):
            reporter.say(msgspec.structs.replace(NOT_UNDERSTOOD, message=f"{number:03}" + "x" * 100_000))
        reporter.say(msgspec.structs.replace(NOT_UNDERSTOOD, message="000" + "x" * 99_000 + "y"))

    tracemalloc.start()
    try:
        reporter = Reporter(FakeApi(), "n1", True, lambda: "2026-01-01T00:00:00Z", [].append)
        say(reporter)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 20
    assert len(reported(FakeApi(), until=400, say=say)) == 400, "what is not said makes no other event"


def test_two_nodes_that_say_the_same_give_one_event() -> None:
    names = {event_body(NOT_UNDERSTOOD, node, "now")["metadata"]["name"] for node in ("n1", "n2")}
    assert len(names) == 1
    refused = FakeApi(ApiRefused("create", "events", 409, "AlreadyExists"))
    reported(refused, until=1, say=lambda reporter: reporter.say(NOT_UNDERSTOOD))


def test_what_is_not_heard_is_said_again() -> None:
    api = FakeApi(ApiUnreachable("create", "events", "no route"), ApiRefused("create", "events", 503, "Busy"))
    sent = reported(api, until=3, say=lambda reporter: reporter.say(NOT_UNDERSTOOD))
    assert len({msgspec.json.encode(body) for _, _, body in sent}) == 1


def test_a_gate_turns_for_the_pod_of_that_uid_and_one_that_is_gone_is_let_go() -> None:
    api = FakeApi(ApiRefused("patch", "pods/status", 404, "NotFound"))
    ((_, path, body), (_, second, _)) = reported(
        api, until=2, say=lambda r: (r.ready(Gate("shop", "web", "u1")), r.ready(Gate("shop", "api", "u2")))[0]
    )
    assert path == "/api/v1/namespaces/shop/pods/web/status" and second.endswith("/api/status")
    assert body["metadata"] == {"uid": "u1"}
    (condition,) = body["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("podfence.io/policy-ready", "True")


def test_the_taint_is_taken_off_where_it_stands_and_no_other() -> None:
    taints = [{"key": "other"}, TAINT, {"key": "more"}, {**TAINT, "effect": "NoExecute"}]
    patch = taint_patch({"spec": {"taints": taints}})
    for step in patch:
        at = int(step["path"].split("/")[3])
        if step["op"] == "test":
            assert taints[at]["key"] == step["value"]
        else:
            del taints[at]
    assert taints == [{"key": "other"}, {"key": "more"}]


@pytest.mark.parametrize("node", [{}, {"spec": {}}, {"spec": {"taints": None}}, {"spec": {"taints": [{"key": "x"}]}}])
def test_without_the_taint_nothing_is_patched(node: dict[str, Any]) -> None:
    assert taint_patch(node) == []


def test_a_taint_that_moved_meanwhile_is_looked_for_again() -> None:
    node = msgspec.json.encode({"spec": {"taints": [TAINT]}})
    api = FakeApi(node, ApiRefused("patch", "nodes", 422, "Invalid"), node)
    sent = reported(api, until=4, say=Reporter.untaint)
    assert [method for method, _, _ in sent] == ["GET", "PATCH", "GET", "PATCH"]
