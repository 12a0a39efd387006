"""An agent that takes its time is not taken for one that says nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from podfence import agents
from tests.cli.api_server import Server, serving
from tests.cli.exec_server import Ran
from tests.cli.laptop import agent_pod


def test_an_answer_that_is_not_there_in_time_is_said_to_be_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(argv: Sequence[str]) -> Ran:
        time.sleep(2)
        return "{}", "", 0

    monkeypatch.setattr(agents, "_PATIENCE", 0.3)
    pod = agent_pod("n1") | {"status": {"phase": "Running"}}
    with serving(Server([pod], agents={"agent-n1": late})) as server:
        asked = agents.Agents(str(server.kubeconfig(tmp_path)), None, "podfence-system")
        (answer,) = asked.ask(asked.find(), ["podfence", "node", "status"])
    assert (answer.said, answer.error) == (b"", "exec: no whole answer within 0.3 s")
