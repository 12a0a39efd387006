"""`podfence validate` on right, wrong, unparsable and hostile files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

GOOD = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: web}}
"""
WRONG = GOOD.replace("  - from:", "  - form:")
UNPARSABLE = "kind: NetworkPolicy\n\tmetadata: {}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path


def test_right_files_end_with_0_and_nothing_on_stdout(podfence, folder) -> None:
    ran = podfence("validate", "-f", folder)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "nothing wrong" in ran.stderr


def test_a_wrong_policy_is_a_line_with_its_place_and_ends_with_1(podfence, folder) -> None:
    wrong = folder / "wrong.yaml"
    wrong.write_text(WRONG.replace("name: api", "name: misspelt"))
    ran = podfence("validate", "-f", folder)
    assert ran.returncode == 1
    assert ran.stdout.startswith(f"{wrong}:7: NetworkPolicy shop/misspelt: spec.ingress[0]")
    assert "form" in ran.stdout
    assert ran.stderr == ""


def test_an_unparsable_file_ends_with_4_and_its_line(podfence, folder) -> None:
    (folder / "bad.yaml").write_text(UNPARSABLE)
    ran = podfence("validate", "-f", folder)
    assert (ran.returncode, ran.stdout) == (4, "")
    assert ran.stderr.startswith(f"podfence: {folder}/bad.yaml:2: ")
    assert ran.stderr.count("\n") == 1


def test_stdin(podfence) -> None:
    assert podfence("validate", "-f", "-", stdin=GOOD).returncode == 0
    assert podfence("validate", "-f", "-", stdin=WRONG).returncode == 1


def test_folders_below_are_read_only_when_asked_for(podfence, folder) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "wrong.yaml").write_text(WRONG.replace("name: api", "name: misspelt"))
    assert podfence("validate", "-f", folder).returncode == 0
    assert podfence("validate", "-R", "-f", folder).returncode == 1


@pytest.mark.parametrize(("form", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents(podfence, folder, form, parse) -> None:
    (folder / "wrong.yaml").write_text(WRONG.replace("name: api", "name: misspelt"))
    ran = podfence("validate", "-f", folder, "-o", form)
    assert ran.returncode == 1
    answer = parse(ran.stdout)
    assert answer["files"] == 2
    (problem,) = answer["problems"]
    assert (problem["line"], problem["kind"], problem["name"]) == (7, "NetworkPolicy", "shop/misspelt")
    assert problem["field"].startswith("spec.ingress[0]")


@pytest.mark.parametrize("form", ["text", "json", "yaml"])
def test_escapes_in_names_do_not_reach_the_terminal(podfence, tmp_path, form) -> None:
    (tmp_path / "hostile.yaml").write_text(GOOD.replace("name: api", r'name: "a\e]0;owned\a\nPASS\u202e"'))
    ran = podfence("validate", "-f", tmp_path, "-o", form)
    assert ran.returncode == 1
    assert not {"\x1b", "\a", "\u202e", "\x9b"} & set(ran.stdout)
    assert not any(line.startswith("PASS") for line in ran.stdout.splitlines())


def test_a_file_that_is_not_there(podfence, tmp_path) -> None:
    ran = podfence("validate", "-f", tmp_path / "gone.yaml")
    assert ran.returncode in (2, 4)
    assert "gone.yaml" in ran.stderr
    assert ran.stderr.count("\n") == 1
