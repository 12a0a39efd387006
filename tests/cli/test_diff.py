"""`podfence diff`: sides from files, folders and git revisions; forms of output; endings that scripts can rely on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

PODS = """\
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
status: {phase: Running, podIP: 10.0.0.2}
"""
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: %d}]
"""
OPENED_AND_CLOSED = """\
opened: default/web -> default/db, 81/TCP
  ingress: default/db spec.ingress[0].from[0] (%s/new/db.yaml:7)
closed: default/web -> default/db, 80/TCP
  ingress: default/db spec.ingress[0].from[0] (%s:7)
1 opened, 1 closed
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pods.yaml").write_text(PODS)
    for side, port in (("old", 80), ("new", 81)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "db.yaml").write_text(POLICY % ("db", port))
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    names = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    environment = {**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", "-C", folder, *arguments], env=environment, check=True, capture_output=True)


def test_folders(podfence, folder) -> None:
    ran = podfence("diff", folder / "old", folder / "new", "-f", folder / "pods.yaml")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == OPENED_AND_CLOSED % (folder, folder / "old/db.yaml")


def test_json_and_yaml_are_one_answer(podfence, folder) -> None:
    sides = (folder / "old/db.yaml", folder / "new/db.yaml", "-f", folder / "pods.yaml")
    answer = json.loads(podfence("diff", *sides, "-o", "json").stdout)
    assert yaml.safe_load(podfence("diff", *sides, "-o", "yaml").stdout) == answer
    opened, closed = answer
    assert (opened["change"], opened["ports"], opened["src"]) == (
        "opened",
        "81/TCP",
        [{"name": "default/web", "pods": 1}],
    )
    assert [(why["side"], why["line"]) for each in (opened, closed) for why in each["why"]] == [("new", 7), ("old", 7)]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), 0),
        (("--exit-code",), 1),
        (("--fail-on", "opened"), 1),
        (("--fail-on", "closed"), 1),
        (("--fail-on", "any"), 1),
    ],
)
def test_endings(podfence, folder, options, code) -> None:
    common = ("-f", folder / "pods.yaml", *options)
    assert podfence("diff", folder / "old", folder / "new", *common).returncode == code
    same = podfence("diff", folder / "old", folder / "old", *common)
    assert (same.returncode, same.stdout) == (0, "no flow is opened or closed\n")


def test_a_kind_that_is_not_there_does_not_fail(podfence, folder) -> None:
    (folder / "new/db.yaml").write_text(POLICY.replace("ports: [{port: %d}]", "ports: []") % "db")
    sides = (folder / "old", folder / "new", "-f", folder / "pods.yaml", "--fail-on")
    assert podfence("diff", *sides, "closed").returncode == 0
    assert podfence("diff", *sides, "opened").returncode == 1


def test_a_git_revision(podfence, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "policies").mkdir()
    (folder / "policies/db.yaml").write_text(POLICY % ("db", 80))
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "policies/db.yaml").unlink()
    (folder / "new/db.yaml").rename(folder / "policies/other.yaml")
    git(folder, "commit", "-qam", "second")
    for old in ("HEAD~1:policies", "HEAD~1:policies/", "HEAD~1:policies/db.yaml"):
        ran = podfence("diff", old, "policies/other.yaml", "-f", "pods.yaml")
        place = "HEAD~1:policies/db.yaml"
        assert ran.stdout == (OPENED_AND_CLOSED % (folder, place)).replace(f"{folder}/new/db", "policies/other")


@pytest.mark.parametrize("old", ["HEAD:nope", "nope:policies", "nowhere", "HEAD:old/link.yaml"])
def test_what_is_not_there_is_one_line(podfence, folder, monkeypatch, old) -> None:
    monkeypatch.chdir(folder)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    ran = podfence("diff", old, "new", "-f", "pods.yaml")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)


def test_a_link_in_a_revision_is_not_passed_over(podfence, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "old/link.yaml").symlink_to("db.yaml")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    ran = podfence("diff", "HEAD:old", "new", "-f", "pods.yaml")
    assert (ran.returncode, ran.stdout) == (4, "")
    assert "old/link.yaml" in ran.stderr


def test_without_pods_nothing_can_be_known(podfence, folder) -> None:
    ran = podfence("diff", folder / "old", folder / "new")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "-f" in ran.stderr


def test_hostile_names_are_shown_escaped(podfence, folder) -> None:
    evil = '"<script>|@all `x` \\e[31m"'
    (folder / "new/db.yaml").write_text(POLICY % (evil, 81))
    sides = (folder / "old", folder / "new", "-f", folder / "pods.yaml")
    text = podfence("diff", *sides).stdout
    assert "\x1b" not in text and "\\x1b" in text
    page = podfence("diff", *sides, "-o", "markdown").stdout
    assert "\x1b" not in page and "<script>" not in page and "@all" not in page
    # A wrong name closes the policy: what is left is one row, of as many cells as its head.
    rows = [row for row in page.splitlines() if row.startswith("| ")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}
