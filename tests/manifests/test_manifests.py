"""The manifests say what the agent has: its options, its metrics, its permissions, and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from enforcer.agent.board import AgentStatus
from enforcer.agent.metrics import Metrics
from enforcer.keeping.family import FamilyCounts
from enforcer.readback.status import Denied
from manifests.image import build
from podfence.agent_config import defaults
from podfence.node_agent import PREFIX, agent

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
BASE = MANIFESTS / "base"
MONITORING = MANIFESTS / "overlays" / "monitoring"
OPTIONS = {f"{PREFIX}_{each.name}".upper() for each in agent.params if isinstance(each, click.Option)}


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def daemonset() -> dict[str, Any]:
    (found,) = documents(BASE / "daemonset.yaml")
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


def metrics() -> set[str]:
    """Every sample that the agent's page has."""
    counts = {4: FamilyCounts(1, 1, 1, 1)}
    status = AgentStatus(version="0", node="n", backend="nft", mode="enforce", kernel=counts, troubles={"Pod": "x"})
    page = Metrics(lambda: status, lambda: [Denied("a/b", "10.0.0.1", "ingress", 1)])
    page.watch_restarts.labels("Pod").inc()
    page.flow_ending.labels("ended").observe(0)
    return set(re.findall(r"^(podfence_\w+)", page.page("")[0].decode(), re.MULTILINE))


def test_every_environment_variable_is_an_option() -> None:
    text = "".join(path.read_text() for path in MANIFESTS.rglob("*.yaml"))
    used = set(re.findall(rf"\b{PREFIX}_[A-Z_]+", text))
    assert {f"{PREFIX}_LISTEN", f"{PREFIX}_MODE", f"{PREFIX}_BACKEND"} <= used <= OPTIONS


def test_the_agent_is_as_little_as_it_can_be() -> None:
    pod = daemonset()
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert "privileged" not in security and "hostPID" not in pod
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["cni-results"]["readOnly"]


def test_enforcement_needs_no_more_than_to_read() -> None:
    roles = {each["metadata"]["name"]: each for each in documents(BASE / "rbac.yaml") if each["kind"] == "ClusterRole"}
    assert {verb for rule in roles["podfence"]["rules"] for verb in rule["verbs"]} == {"list", "watch"}
    asked = {(r, v) for rule in roles["podfence-reports"]["rules"] for r in rule["resources"] for v in rule["verbs"]}
    assert asked == {("events", "create"), ("pods/status", "patch"), ("nodes", "get"), ("nodes", "patch")}


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    rules = (MONITORING / "rules.yaml").read_text()
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    expressions = [rule["expr"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expression in expressions for name in re.findall(r"\bpodfence_\w+", expression)}
    assert len(expressions) > 15 and asked <= metrics()


def test_every_alert_says_what_to_do() -> None:
    for group in documents(MONITORING / "rules.yaml")[0]["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning", "info")
            assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_the_file_of_the_systemd_unit_is_one_that_the_agent_takes() -> None:
    found = defaults(MANIFESTS / "systemd" / "agent.yaml", agent)
    assert found == {"filename": ("/etc/podfence/manifests",), "mode": "enforce", "log_format": "text"}


def test_the_images_command_ends_as_podfence_does() -> None:
    """An init container that waits for policies must not end well where they never came."""
    ran = subprocess.run([sys.executable, "-c", build._COMMAND, "no-such-command"], capture_output=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert build._COMMAND.replace("\n", "\\n") in (MANIFESTS / "image/Dockerfile").read_text()
