"""`podfence node denials` with an agent that answers, and without one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from enforcer.agent.denials import Denial, encoded
from enforcer.agent.serve_local import LocalServer
from podfence.main import main
from podfence.node import command

DENIALS = [Denial(float(n), "denied", "10.0.0.1", "10.0.0.2", "TCP", "ingress", port=n) for n in (1, 2, 3)]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """One that tells of three denials, and what it was asked."""
    asked: list[dict[str, Any]] = []

    def answers(question: dict[str, Any]) -> Iterable[Denial]:
        asked.append(question)
        return DENIALS

    monkeypatch.setenv("PODFENCE_STATE_DIR", str(tmp_path))
    with LocalServer(str(tmp_path), answers):
        yield asked


def run(*arguments: str) -> list[str]:
    done = CliRunner().invoke(command, ["denials", *arguments], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.output.splitlines()


def test_an_agent_is_asked_and_what_it_tells_is_shown(agent: list[dict[str, Any]]) -> None:
    lines = run()
    assert agent == [{"ask": "denials", "follow": False}]
    assert [line.partition(" ")[2] for line in lines] == [
        f"denied ingress: 10.0.0.1 -> 10.0.0.2 TCP {port}" for port in (1, 2, 3)
    ]


def test_json_is_one_line_a_denial_and_count_ends_it(agent: list[dict[str, Any]]) -> None:
    assert run("-f", "--count", "2", "-o", "json") == [encoded(each).decode().strip() for each in DENIALS[:2]]
    assert agent == [{"ask": "denials", "follow": True}]


def test_yaml_is_a_document_a_denial(agent: list[dict[str, Any]]) -> None:
    documents = list(yaml.safe_load_all("\n".join(run("-o", "yaml"))))
    assert [each["port"] for each in documents] == [1, 2, 3]


def test_without_an_agent_there_is_only_following(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PODFENCE_STATE_DIR", str(tmp_path))
    assert main(["node", "denials"]) == 2
    assert "follow them with -f" in capsys.readouterr().err
