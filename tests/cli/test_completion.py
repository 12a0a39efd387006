"""Completion, as shells and kubectl ask for it, and podfence as kubectl's plugin."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "manifests/examples/shop"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def kubectl(function: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """What the console script of that entry point does."""
    scripts = tomllib.loads(PROJECT.read_text())["project"]["scripts"]
    module, name = scripts[function].split(":")
    code = f"import sys; from {module} import {name}; sys.exit({name}())"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def completions(*words: object) -> list[str]:
    ran = kubectl("kubectl_complete-podfence", *words)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def test_kubectl_podfence_is_podfence() -> None:
    ran = kubectl("kubectl-podfence", "validate", "-f", EXAMPLE)
    assert ran.returncode == 0
    wrong = kubectl("kubectl-podfence", "validate")
    assert (wrong.returncode, "see kubectl podfence validate --help" in wrong.stderr) == (2, True)


def test_commands_with_their_summaries() -> None:
    found = completions("")
    assert "diff\tShow the flows that a change opens and closes." in found
    assert found[-1] == ":4"
    assert completions("di") == ["diff\tShow the flows that a change opens and closes.", ":4"]


def test_names_come_from_the_files_given() -> None:
    found = completions("explain", "-f", EXAMPLE, "shop/web-0", "data/")
    assert found == ["data/backup-0", "data/cache-0", "data/db-0", "data/db-1", ":4"]
    assert completions("reach", "-f", EXAMPLE, "--from", "node/") == ["node/n1", "node/n2", ":4"]
    assert completions("explain", "-f", EXAMPLE, "-n", "s") == ["shop", ":4"]
    assert "shop/netpol/web" in completions("explain", "-f", EXAMPLE, "--without", "shop/")
    assert completions("explain", "-f", EXAMPLE, "--live", "--node", "") == ["n1", "n2", ":4"]
    assert completions("node", "plan", "-f", EXAMPLE, "--node", "") == ["n1", "n2", ":4"]


def test_choices_options_and_files() -> None:
    assert completions("lint", "-o", "sa") == ["sarif", ":4"]
    assert any(each.startswith("--fail-on") for each in completions("lint", "--fail"))
    assert completions("lint", "-f", "") == [":0"]


def test_names_of_the_lines_namespace_need_none() -> None:
    assert completions("explain", "-f", EXAMPLE, "-n", "shop", "wo") == ["worker-0", ":4"]


@pytest.mark.parametrize("words", [("explain", "-f", "nowhere", ""), ("validate", ""), ("node", "plan", "--node", "")])
def test_nothing_is_offered_where_nothing_is_known(words) -> None:
    assert completions(*words) == [":4"]


HOSTILE = ["$(touch x)", "a;b", "a b", "a:b", "-rf", "a\n:0", "\x1b[1m", "é", "`x`", "a" * 500]


def test_a_name_that_a_shell_could_run_is_not_offered(tmp_path) -> None:
    pods = "---\n".join(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {json.dumps(name)}}}\n" for name in ["web", *HOSTILE]
    )
    (tmp_path / "pods.yaml").write_text(pods)
    assert completions("explain", "-f", tmp_path, "") == ["default/web", "internet", "web", ":4"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(podfence, shell, tmp_path) -> None:
    script = podfence("completion", shell).stdout
    assert f"_PODFENCE_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        checked = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_with_files_behind_the_cursor(podfence) -> None:
    line = f"podfence explain shop/web-0 data/d -f {EXAMPLE}"
    environment = {"_PODFENCE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "3"}
    ran = podfence(**environment)
    assert ran.stdout.splitlines() == ["plain,data/db-0", "plain,data/db-1"]


def test_completion_in_a_real_bash(tmp_path) -> None:
    """The function that the script defines, called as readline does."""
    (tmp_path / "podfence").write_text(f'#!/bin/sh\nexec {sys.executable} -m podfence "$@"\n')
    (tmp_path / "podfence").chmod(0o755)
    asked = (
        "source <(podfence completion bash 2>/dev/null | sed '/_completion_setup;$/d'); "
        f"COMP_WORDS=(podfence explain -f {EXAMPLE} shop/w); COMP_CWORD=4; "
        "_podfence_completion podfence; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", asked], env=environment, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["shop/web-0", "shop/web-1", "shop/worker-0"], ran.stderr
