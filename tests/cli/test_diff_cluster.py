"""`podfence diff` with a cluster for a side: what applying a folder would do, and what the folder does not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.api_server import Server, serving
from tests.semantics.world import policy, standing

PORT = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: %d}]}]}"
EXTRA = policy("{podSelector: {}, policyTypes: [Ingress]}", "shop/extra")
OTHER = policy("{podSelector: {}, policyTypes: [Ingress]}", "bank/other")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "policies"
    found.mkdir()
    (found / "db.yaml").write_text(yaml.safe_dump(policy(PORT % 81, "shop/db")))
    return found


@pytest.fixture
def diff(podfence, tmp_path: Path):
    """Runs `diff OLD NEW …` where the cluster holds its pods, `shop/db` for port 80, and `more`."""

    def run(*arguments: object, more: tuple[Any, ...] = (), refuse: tuple[str, ...] = ()) -> Any:
        objects = [*standing(), policy(PORT % 80, "shop/db"), *more]
        with serving(Server(objects, refuse)) as server:
            return podfence("diff", *arguments, "--kubeconfig", server.kubeconfig(tmp_path))

    return run


def flows(ran: Any) -> set[tuple[str, str, str, str]]:
    assert ran.returncode in (0, 1), ran.stderr
    return {
        (each["change"], src["name"], dst["name"], each["ports"])
        for each in json.loads(ran.stdout)
        for src in each.get("src", [{"name": "outside"}])
        for dst in each.get("dst", [{"name": "outside"}])
    }


def test_a_folder_is_what_would_be_applied(diff, folder) -> None:
    ran = diff("cluster:", folder, "-o", "json", "--exit-code")
    assert ran.returncode == 1
    assert flows(ran) == {
        ("opened", "shop/web", "shop/db", "81/TCP"),
        ("closed", "shop/web", "shop/db", "80/TCP"),
    }
    opened, closed = json.loads(ran.stdout)
    assert opened["why"] == [
        {
            "side": "new",
            "direction": "ingress",
            "what": "admits",
            "policy": "shop/db",
            "field": "spec.ingress[0].from[0]",
            "file": str(folder / "db.yaml"),
            "line": 9,
        }
    ]
    assert [(why["side"], why.get("file")) for why in closed["why"]] == [("old", None)]


def test_the_other_way_round(diff, folder) -> None:
    assert flows(diff(folder, "cluster:", "-o", "json")) == {
        ("opened", "shop/web", "shop/db", "80/TCP"),
        ("closed", "shop/web", "shop/db", "81/TCP"),
    }


def test_what_the_folder_does_not_hold_stays_unless_it_is_pruned(diff, folder) -> None:
    (folder / "db.yaml").write_text(yaml.safe_dump(policy(PORT % 80, "shop/db")))
    same = diff(
        "cluster:",
        folder,
        more=(EXTRA, OTHER),
    )
    assert (same.returncode, same.stdout) == (0, "no flow is opened or closed\n")
    pruned = flows(diff("cluster:", folder, "--prune", "-o", "json", more=(EXTRA, OTHER)))
    # Of `bank`, of which the folder does not speak, nothing is gone.
    assert {(change, dst) for change, _, dst, _ in pruned} == {("opened", "shop/web")}


def test_a_git_revision_against_the_cluster_and_files_on_both_sides(diff, folder, tmp_path) -> None:
    both = tmp_path / "both.yaml"
    both.write_text(yaml.safe_dump(EXTRA))
    ran = diff("cluster:", folder, "-f", both, "-o", "json")
    assert ("closed", "shop/web", "shop/db", "80/TCP") in flows(ran)
    assert not [each for each in json.loads(ran.stdout) if each.get("dst") == [{"name": "shop/web", "pods": 1}]]


def test_what_cannot_be_read_leaves_nothing_known(diff, folder) -> None:
    ran = diff("cluster:", folder, refuse=("networkpolicies",))
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "list networkpolicies: 403 Forbidden" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("cluster:", "cluster:"), "both sides are cluster:"), (("FOLDER", "FOLDER", "--prune"), "--prune are for")],
)
def test_no_such_question(podfence, folder, arguments, message) -> None:
    ran = podfence("diff", *(folder if each == "FOLDER" else each for each in arguments))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert message in ran.stderr


def test_no_cluster(podfence, folder, tmp_path) -> None:
    ran = podfence("diff", "cluster:", folder, KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (3, "", 1)
