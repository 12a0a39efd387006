"""What an agent is told: flags before environment before file, all of it judged before anything begins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from enforcer.agent.settings import Settings
from podfence.agent_config import options_of
from podfence.main import main
from podfence.node_agent import _PLURALS, PREFIX, agent

DOCS = Path(__file__).parents[2] / "docs" / "agent.md"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each agent that would have been started."""
    found: list[Settings] = []
    monkeypatch.setattr("enforcer.agent.wiring.run", lambda settings, _: found.append(settings))
    monkeypatch.setattr("enforcer.agent.log.set_up", lambda *_: None)
    monkeypatch.delenv("NODE_NAME", raising=False)
    return found


def test_flags_go_before_environment_and_that_before_the_file(
    told: list[Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("mode: off\ndeny: drop\nresync: 5\npod-cidr: [10.1.0.0/16, 'fd00::/64']\nmark: 0x2000\n")
    monkeypatch.setenv(f"{PREFIX}_DENY", "reject")
    monkeypatch.setenv(f"{PREFIX}_RESYNC", "7")
    assert main(["node", "agent", "--config", str(file), "--resync", "9", "--node", "n1"]) == 0
    (found,) = told
    assert (found.mode, found.deny, found.resync, found.mark) == ("off", "reject", 9.0, 0x2000)
    assert [str(block) for block in found.pod_cidrs] == ["10.1.0.0/16", "fd00::/64"]


def test_several_values_stand_apart_in_the_environment(told: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}_POD_CIDR", "10.1.0.0/16 10.2.0.0/16")
    monkeypatch.setenv(f"{PREFIX}_TAINT", "false")
    monkeypatch.setenv("NODE_NAME", "from-the-downward-api")
    assert main(["node", "agent"]) == 0
    assert len(told[0].pod_cidrs) == 2 and not told[0].taint and told[0].node == "from-the-downward-api"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "loose"], "--mode"),
        (["--mark", "0x3"], "--mark"),
        (["--pod-cidr", "10.1.0.0/33"], "--pod-cidr"),
        (["--pod-cidr", "::/0"], "--pod-cidr"),
        (["--listen", "nowhere"], "--listen nowhere"),
        (["--interface", "web=eth0"], "--interface web=eth0"),
        (["--resync", "0"], "--resync"),
        (["--log-group", "70000"], "--log-group"),
        (["--node", ""], "--node"),
        (["-f", "x", "--context", "y"], "-f takes the place"),
        (["--config", "/nowhere/agent.yaml"], "/nowhere/agent.yaml"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(
    told: list[Settings], arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", "agent", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and told == []


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("modus: audit", 2, "modus: no option has this name"),
        ("config: other.yaml", 2, "config: no option has this name"),
        ("mode: [audit]", 2, "mode: expected one value"),
        ("pod-cidr: {a: b}", 2, "pod-cidr: expected a value or a list"),
        ("mode: audit\nmode: off", 4, ":2"),
        ("- mode", 4, "expected one mapping"),
        ("mode: audit\n---\nmode: off", 4, "expected one mapping"),
        ("mode: [", 4, "agent.yaml"),
        ("mode: loose", 2, "loose"),
    ],
)
def test_a_file_that_is_not_understood_is_refused_with_its_place(
    told: list[Settings], text: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    assert main(["node", "agent", "--node", "n", "--config", str(file)]) == code
    assert said in capsys.readouterr().err.replace("'", "") and told == []


def test_an_empty_file_says_nothing(told: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("# nothing\n")
    assert main(["node", "agent", "--node", "n", "--config", str(tmp_path / "agent.yaml")]) == 0
    assert told == [Settings(node="n")]


def test_the_docs_have_one_row_for_each_option() -> None:
    rows = re.findall(r"^\| `--([\w-]+)` \| `(\w+)` \| ", DOCS.read_text(), re.MULTILINE)
    flags = {key: each for key, each in options_of(agent).items() if key != "help"}
    assert [flag for flag, _ in rows] == [*flags]
    for flag, variable in rows:
        assert variable == f"{PREFIX}_{flags[flag].name}".upper()


def test_every_setting_can_be_told() -> None:
    names = {_PLURALS.get(str(each.name), each.name) for each in agent.params if isinstance(each, click.Option)}
    fields: Any = Settings.__struct_fields__
    assert set(fields) == names - {"config", "log_format", "log_level"}
