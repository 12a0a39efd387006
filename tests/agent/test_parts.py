"""The agent's small parts: one agent a node, backoff, the inbox, break-glass, and who waits for a pod."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from enforcer.agent.backoff import Backoff
from enforcer.agent.board import AgentStatus
from enforcer.agent.inbox import MOST_AT_ONCE, Inbox
from enforcer.agent.notice import notices
from enforcer.agent.nudge import Nudges
from enforcer.agent.opening import ANNOTATION, NO_REASON, close_node, open_node, opened_by
from enforcer.agent.programmed import Programmed, holds
from enforcer.agent.single import SingleAgent
from policy.cidr import Address, parse_address
from policy.errors import HostRefused


def test_a_second_agent_waits_for_the_first_and_then_takes_over(tmp_path: Path) -> None:
    first = SingleAgent(str(tmp_path), 1)
    first.__enter__()
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            first.__exit__(None, None, None)

    with SingleAgent(str(tmp_path), 60, sleep=sleep):
        assert len(waits) == 3


def test_a_second_agent_is_refused_in_one_line_that_names_the_first(tmp_path: Path) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with SingleAgent(str(tmp_path), 1), pytest.raises(HostRefused) as refused:
        SingleAgent(str(tmp_path), 2, clock=lambda: now[0], sleep=sleep).__enter__()
    assert f"process {os.getpid()}" in str(refused.value) and "\n" not in str(refused.value)


def test_an_agent_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    holder = "import sys, os, signal; from enforcer.agent.single import SingleAgent\n"
    holder += "SingleAgent(sys.argv[1], 0).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", holder, str(tmp_path)], check=False)
    assert done.returncode == -9
    with SingleAgent(str(tmp_path), 0):
        pass


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostRefused, match=r"agent\.lock.*--state-dir"):
        SingleAgent(str(tmp_path / "file" / "below"), 0).__enter__()


def test_backoff_doubles_up_to_its_ceiling_and_begins_anew() -> None:
    backoff = Backoff(1, 5, chance=lambda: 1)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next() == 1
    assert Backoff(1, 5, chance=lambda: 0).next() == 0.5


def test_the_inbox_keeps_order_and_moments_and_gives_a_bounded_batch() -> None:
    now = iter(range(1_000_000))
    inbox: Inbox[str] = Inbox(clock=lambda: next(now))
    for name in ("a", "b"):
        inbox.put(name)
    assert inbox.drain(0) == [(0, "a"), (1, "b")]
    assert inbox.drain(0) == [] == inbox.drain(0.001)
    for _ in range(MOST_AT_ONCE + 1):
        inbox.put("c")
    assert len(inbox.drain(0)) == MOST_AT_ONCE
    assert len(inbox.drain(0)) == 1


def test_the_inbox_wakes_who_waits() -> None:
    inbox: Inbox[str] = Inbox()
    threading.Timer(0.05, inbox.put, ["news"]).start()
    ((_, message),) = inbox.drain(10)
    assert message == "news"


def test_break_glass_lasts_until_it_is_closed(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    assert opened_by(state, {}) == ""
    open_node(state, "incident 7")
    assert "incident 7" in opened_by(state, {})
    assert close_node(state) and not close_node(state)
    assert opened_by(state, {}) == ""


def test_the_annotation_opens_too_and_an_empty_reason_is_said() -> None:
    assert "why not" in opened_by("/nowhere", {ANNOTATION: "why not"})
    assert NO_REASON in opened_by("/nowhere", {ANNOTATION: ""})


def test_a_pod_is_waited_for_by_its_uid(tmp_path: Path) -> None:
    state = str(tmp_path)
    (tmp_path / "pods").mkdir()
    (tmp_path / "pods" / "left-by-another-agent").touch()
    programmed = Programmed(state)
    assert not holds(state, "left-by-another-agent")
    assert programmed.put(["a-1", "b-2"]) == {"a-1", "b-2"}
    assert programmed.put(["b-2", "c-3"]) == {"c-3"}
    assert [holds(state, uid) for uid in ("a-1", "b-2", "c-3")] == [False, True, True]


@pytest.mark.parametrize("uid", ["", "..", "../agent.lock", "a/b", "a" * 65, "ü", "a\0b"])
def test_what_is_no_uid_is_no_file(tmp_path: Path, uid: str) -> None:
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert Programmed(str(tmp_path)).put([uid]) == set()
    assert not holds(str(tmp_path), uid)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*before, "pods"])


def test_each_address_is_nudged_once_a_second() -> None:
    now, sent = [0.0], list[Address]()
    nudges = Nudges(lambda: now[0], sent.append)
    one, other = (parse_address(text) for text in ("10.0.0.1", "fd00::1"))
    nudges([one])
    nudges([one, other])
    assert sent == [one, other]
    now[0] = 1.0
    nudges([one])
    assert sent == [one, other, one]
    nudges(Address(4, number) for number in range(100))
    assert len(sent) == 3 + 64


def test_the_log_tells_what_became_worse_and_what_is_well_again() -> None:
    well = AgentStatus(version="0", node="n", backend="nft", mode="enforce")
    refused = "list networkpolicies: 403 Forbidden"
    ill = replace(
        well,
        troubles={"NetworkPolicy": refused},
        problems=("NetworkPolicy shop/bad: not a CIDR",),
        weaknesses=("tags pass by",),
    )
    assert list(notices(well, well)) == list(notices(ill, ill)) == []
    said = [(each.level, *each.fields.values()) for each in notices(well, ill)]
    assert said == [
        ("warning", "NetworkPolicy", refused),
        ("warning", "NetworkPolicy shop/bad: not a CIDR"),
        ("warning", "tags pass by"),
    ]
    assert [each.fields["why"] for each in notices(ill, replace(ill, troubles={"NetworkPolicy": "410"}))] == ["410"]
    assert [(each.level, each.message) for each in notices(ill, well)] == [("info", "followed again")]
