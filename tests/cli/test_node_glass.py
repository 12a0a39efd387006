"""`podfence node open`, `close` and `wait`, with an agent that follows and without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.agent.opening import opened_by
from enforcer.agent.serve_local import LocalServer
from podfence.main import main


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One that follows the file at once."""
    state = str(tmp_path)

    def answers(_: dict[str, Any]) -> list[dict[str, Any]]:
        opened = opened_by(state, {})
        return [{"opened": opened, "mode": "off" if opened else "enforce"}]

    monkeypatch.setenv("PODFENCE_STATE_DIR", state)
    with LocalServer(state, answers):
        yield state


def test_open_and_close_with_an_agent(agent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "open", "--reason", "incident 7", "-o", "json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"opened": True, "agent": True} and "OPEN" in said.err
    assert "incident 7" in opened_by(agent, {})
    assert main(["node", "close"]) == 0
    assert capsys.readouterr().out == "this node is enforced again\n"
    assert main(["node", "close"]) == 0
    assert "was not opened" in capsys.readouterr().out


def test_a_reason_is_asked_for(agent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "open"]) == 2
    assert "--reason" in capsys.readouterr().err and opened_by(agent, {}) == ""


def test_wait_for_a_pod(agent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "wait", "--uid", "u-1", "--timeout", "0"]) == 1
    (Path(agent) / "pods").mkdir()
    (Path(agent) / "pods" / "u-1").touch()
    assert main(["node", "wait", "--uid", "u-1", "--timeout", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "the policies of pod u-1 hold"
    assert main(["node", "wait", "--uid", "../agent.lock"]) == 2
