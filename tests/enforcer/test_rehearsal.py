"""`podfence rehearse` on a real kernel: the connections that it names are those that `node apply` then ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from podfence.lab_objects import api_objects
from tests.enforcer.connections import ALLOWED, DENIED, apply, connection, policy
from tests.enforcer.test_kernel import World, backends, world

__all__ = ["world"]
pytestmark = pytest.mark.kernel


@pytest.fixture
def rehearse(world: World, tmp_path: Path):
    def run(policies: str, *arguments: str) -> tuple[int, Any]:
        (tmp_path / "objects.yaml").write_text(yaml.safe_dump(api_objects(world.lab.cluster)))
        (tmp_path / "policies.yaml").write_text(policies)
        files = ["-f", str(tmp_path / "objects.yaml"), "-f", str(tmp_path / "policies.yaml")]
        backend = ["--backend", world.backend.mode, "--node", "n1"]
        command = [sys.executable, "-m", "podfence", "rehearse", *files, *backend, *arguments]
        ran = world.lab.run("n1", command)
        assert ran.stderr == ""
        return ran.returncode, json.loads(ran.stdout) if "json" in arguments else ran.stdout.replace(f"{tmp_path}/", "")

    return run


@backends
def test_what_it_names_is_what_apply_ends(world: World, rehearse) -> None:
    apply(world, ALLOWED)
    with (
        connection(world, "shop/far", "shop/api") as one,
        connection(world, "shop/far", "shop/api", "UDP", 81, 6),
        connection(world, "shop/web", "shop/api", port=81),
    ):
        code, answer = rehearse(policy("81/TCP"), "-o", "json", "--exit-code")
        one.alive()
        assert (code, answer["cut"], answer["first_sync"]) == (1, 2, False)
        told = {
            (each["src"], each["dst"], each["protocol"], each["port"], each["count"]) for each in answer["connections"]
        }
        assert told == {("shop/far", "shop/api", "TCP", 80, 1), ("shop/far", "shop/api", "UDP", 81, 1)}
        for each in answer["connections"]:
            (by,) = each["by"]
            assert (by["direction"], by["policy"]) == ("ingress", "shop/api")
            assert by["file"].endswith("policies.yaml") and by["line"] == 2
        assert apply(world, policy("81/TCP")).ended == 2
        # What has ended is not told again.
        assert rehearse(policy("81/TCP"), "-o", "json")[1]["cut"] == 0
        assert rehearse(policy("81/TCP"), "--exit-code") == (0, "cuts no connection that is in the table now\n")


@backends
def test_equal_connections_are_one_line_and_nothing_changes(world: World, rehearse) -> None:
    apply(world, ALLOWED)
    before = world.lab.run("n1", ["ipset", "list", "-name"]).stdout
    with connection(world, "shop/far", "shop/api") as one, connection(world, "shop/far", "shop/api", port=81) as other:
        code, text = rehearse(DENIED)
        far, api = (world.lab.host(place).address(4) for place in ("shop/far", "shop/api"))
        lines = text.splitlines()
        assert (code, lines[0]) == (0, "cuts 2 connections in the table now:")
        assert set(lines[1::2]) == {f"    1  shop/far ({far}) -> shop/api ({api}), {port}/TCP" for port in (80, 81)}
        assert set(lines[2::2]) == {"         ingress: shop/api (policies.yaml:2)"}
        one.alive()
        other.alive()
    assert world.lab.run("n1", ["ipset", "list", "-name"]).stdout == before


@backends
@pytest.mark.parametrize("blocks", [True, False])
def test_connections_of_a_pod_that_is_gone(world: World, rehearse, blocks: bool) -> None:
    """Known by the node's pod blocks, or else by what the rules in force know."""
    if not blocks:
        nodes = [replace(node, pod_cidrs=()) for node in world.lab.cluster.nodes]
        world.lab.cluster = replace(world.lab.cluster, nodes=nodes)
    apply(world, ALLOWED)
    cluster = world.lab.cluster
    with connection(world, "shop/far", "shop/web", "UDP") as flow:
        flow.alive()
        address = str(world.lab.host("shop/web").address(4))
        world.lab.cluster = replace(cluster, pods=[pod for pod in cluster.pods if pod.key != "shop/web"])
        try:
            _, answer = rehearse(ALLOWED, "-o", "json")
        finally:
            world.lab.cluster = cluster
        assert [(each["dst"], each["gone"]) for each in answer["connections"]] == [("", [address])]


@backends
def test_a_pods_own_egress_and_the_first_sync(world: World, rehearse) -> None:
    egress = DENIED.replace("[Ingress]", "[Egress]").replace("ingress:", "egress:")
    assert "nothing tracks connections" in rehearse(egress)[1]
    tracking = f"iptables-{world.backend.mode} -A FORWARD -m conntrack --ctstate INVALID"
    assert world.lab.run("n1", tracking.split()).returncode == 0
    with connection(world, "shop/api", "shop/far", "UDP") as flow:
        flow.alive()
        _, answer = rehearse(egress, "-o", "json")
        assert (answer["cut"], answer["first_sync"]) == (1, True)
        assert [by["direction"] for each in answer["connections"] for by in each["by"]] == ["egress"]
        assert "first sync ends none" in rehearse(egress)[1]
