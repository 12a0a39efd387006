"""`test`, `matrix` and `reach` of a cluster: what they say of its files, and nothing where a list can't be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.api_server import Server, serving
from tests.semantics.world import policy, standing

OBJECTS = [*standing(), policy("{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}")]
CASES = """\
cases:
  - {name: web may, from: shop/web, to: shop/db, port: 8080, expect: allow}
  - {name: nobody else, to: shop/db, port: 8080, only: []}
"""


@pytest.fixture
def commands(tmp_path: Path) -> list[list[Any]]:
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES)
    return [["test", cases], ["matrix"], ["matrix", "-o", "csv"], ["reach", "--from", "shop/web", "-o", "json"]]


def test_a_cluster_is_answered_as_its_files_are(podfence, commands, tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(yaml.safe_dump_all(OBJECTS))
    with serving(Server(OBJECTS)) as server:
        config = server.kubeconfig(tmp_path)
        for command in commands:
            from_files, from_cluster = podfence(*command, "-f", file), podfence(*command, "--kubeconfig", config)
            places = f" ({file}:"
            shown = "\n".join(line.partition(places)[0] for line in from_files.stdout.splitlines())
            assert (from_cluster.returncode, from_cluster.stdout.rstrip("\n")) == (from_files.returncode, shown)
            assert from_cluster.stdout
        failing = podfence("test", tmp_path / "cases.yaml", "--kubeconfig", config, "-o", "json")
    passed, failed = json.loads(failing.stdout)
    assert (passed["outcome"], failed["outcome"]) == ("passed", "failed")
    assert failed["explanation"].startswith("ALLOWED")


def test_a_change_on_top(podfence, commands, tmp_path: Path) -> None:
    with serving(Server(OBJECTS)) as server:
        config = server.kubeconfig(tmp_path)
        ran = podfence("test", tmp_path / "cases.yaml", "--kubeconfig", config, "--without", "shop/netpol/policy")
        assert "shop/db" in ran.stdout and ran.returncode == 1
        closed = tmp_path / "closed.yaml"
        closed.write_text(yaml.safe_dump(policy("{podSelector: {}, policyTypes: [Ingress]}")))
        ran = podfence("reach", "--from", "shop/web", "--kubeconfig", config, "--with", closed)
        assert "shop/db" not in ran.stdout


def test_nothing_is_said_where_a_list_cannot_be_read(podfence, commands, tmp_path: Path) -> None:
    with serving(Server(OBJECTS, ("networkpolicies",))) as server:
        config = server.kubeconfig(tmp_path)
        for command in commands:
            ran = podfence(*command, "--kubeconfig", config)
            assert (ran.returncode, ran.stdout) == (3, "")
            assert "list networkpolicies: 403 Forbidden" in ran.stderr


def test_in_a_pod_its_service_account_is_asked_for(podfence) -> None:
    """By all commands, those that ask agents too; here the account has no token."""
    pod = {"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    for command, code in ((["status"], 5), (["matrix"], 3)):
        ran = podfence(*command, **pod)
        assert (ran.returncode, ran.stdout) == (code, "")
        assert "the API server can't be found: Service token file does not exist" in ran.stderr
