"""`explain --live`, `node probe` and fixes, on real kernels: what they say is what packets meet."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cluster import Lab
from lab.topology import Attach
from podfence.load import load

pytestmark = pytest.mark.kernel
EXAMPLE = Path(__file__).parents[2] / "manifests/examples/shop"
DENIED = ("shop/web-0", "data/db-0", "--port", "5432")
ALLOWED = ("shop/web-0", "shop/api-0", "--port", "8080")
_numbers = count()


class Shop:
    """The example in a lab, its nodes enforced, from a copy of its files that a test may change."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.enforce()

    def enforce(self, mode: str = "enforce") -> None:
        for node in self.lab.nodes:
            pods = [pod for pod in self.lab.cluster.pods if pod.node == node and pod.selectable]
            links = [word for pod in pods for word in ("--interface", f"{pod.key}={self.lab.host(pod.key).link}")]
            self.on(node, "node", "apply", "-f", self.folder, "--node", node, "--mode", mode, *links)

    def on(self, node: str, *arguments: object, code: int = 0) -> str:
        """Runs `podfence ARGUMENTS` in a node's network namespace."""
        ran = self.lab.run(node, [sys.executable, "-m", "podfence", *map(str, arguments)])
        assert ran.returncode == code, ran.stderr + ran.stdout
        return ran.stdout

    def json(self, node: str, *arguments: object, code: int = 0) -> Any:
        return json.loads(self.on(node, *arguments, "-f", self.folder, "-o", "json", code=code))


@contextmanager
def enforced(folder: Path, attach: Attach = "routed") -> Iterator[Shop]:
    shutil.copytree(EXAMPLE, folder)
    with Lab(f"live-{os.getpid()}-{next(_numbers)}", load([str(folder)]).cluster, attach=attach) as lab:
        yield Shop(lab, folder)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with enforced(tmp_path / "shop") as made:
        yield made


def test_what_is_installed_is_walked_and_drift_is_named(shop: Shop) -> None:
    for flow, outcome in ((DENIED, "reject"), (ALLOWED, "accept")):
        walks = shop.json("n1", "explain", *flow, "--live", "--node", "n1")["live"]["walks"]
        assert [(walk["family"], walk["outcome"]) for walk in walks] == [(4, outcome), (6, outcome)]
        assert all(walk["steps"][0]["chain"] == "PODFENCE-FORWARD" and "drift" not in walk for walk in walks)
    shop.on("n1", "node", "cleanup")
    walks = shop.json("n1", "explain", *DENIED, "--live", "--node", "n1", code=1)["live"]["walks"]
    assert all("nothing of podfence's is in force" in walk["drift"] for walk in walks)
    # Where both agree that it passes, nothing is wrong with this flow.
    shop.json("n1", "explain", *ALLOWED, "--live", "--node", "n1")


def test_a_policy_that_is_not_applied_yet_is_drift(shop: Shop) -> None:
    policies = shop.folder / "more.yaml"
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "more", "namespace": "shop"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    policies.write_text(yaml.safe_dump(policy))
    flow = ("shop/web-0", "203.0.113.1", "--port", "443")
    (walk,) = shop.json("n1", "explain", *flow, "--live", "--node", "n1", code=1)["live"]["walks"]
    assert "the objects allow this flow, and the kernel denies it" in walk["drift"]


def test_the_other_node_is_said_to_be_unseen_and_seen_in_a_lab(shop: Shop) -> None:
    flow = ("shop/web-0", "shop/api-1", "--port", "9090")
    here = shop.json("n1", "explain", *flow, "--live", "--node", "n1")["live"]
    assert {walk["node"] for walk in here["walks"]} == {"n1"}
    assert here["unseen"] == ["node n2: only what is installed on node n1 can be read from here"]
    both = shop.json("n1", "explain", *flow, "--live", "--lab", shop.lab.name)["live"]
    assert [(walk["node"], walk["outcome"]) for walk in both["walks"]] == [
        (node, "accept") for _ in (4, 6) for node in ("n1", "n2")
    ]


def test_pods_on_a_bridge_are_walked_by_port(tmp_path: Path) -> None:
    """Between ports of one bridge, out of it, and into it; the probe agrees with each walk."""
    with enforced(tmp_path / "shop", "bridge") as shop:
        place = ("--lab", shop.lab.name)
        for flow, outcomes in (
            (DENIED, ["reject", "reject"]),
            (ALLOWED, ["accept", "accept"]),
            (("shop/web-0", "shop/api-1", "--port", "9090"), ["accept"] * 4),
            (("shop/web-1", "shop/api-1", "--port", "9999"), ["reject", "reject"]),
        ):
            walks = shop.json("n1", "explain", *flow, "--live", *place)["live"]["walks"]
            assert [walk["outcome"] for walk in walks] == outcomes, flow
            assert not any("drift" in walk for walk in walks)
            # What is routed to a bridge shows no port on its way out.
            own = "n2" if flow[0] == "shop/web-1" else "n1"
            assert [", port veth" in walk["packet"] for walk in walks] == [walk["node"] == own for walk in walks]
        for flow, agrees in ((DENIED, "rejected"), (ALLOWED, "refused")):
            probed = shop.json("n1", "node", "probe", *flow, *place)
            assert (probed["outcome"], probed["agrees"]) == (agrees, True)
            assert probed["took"]


def test_what_a_mode_lets_pass_is_no_drift(shop: Shop) -> None:
    """A node in audit, and one namespace of a node that enforces."""
    shop.enforce("audit")
    live = ("--live", "--node", "n1")
    walks = shop.json("n1", "explain", *DENIED, *live)["live"]["walks"]
    assert [(walk["outcome"], walk["wanted"], walk["spared"]) for walk in walks] == [("accept", "accept", True)] * 2
    probed = shop.json("n1", "node", "probe", *DENIED, "--node", "n1")
    assert (probed["outcome"], probed["wanted"], probed["agrees"]) == ("refused", "allowed", True)
    assert "spared" not in shop.json("n1", "explain", *ALLOWED, *live)["live"]["walks"][0]
    cluster = shop.folder / "cluster.yaml"
    shop.enforce()
    shop.json("n1", "explain", *DENIED, *live)
    cluster.write_text(cluster.read_text().replace("{team: sto", "{podfence.io/mode: audit, team: sto"))
    assert "the kernel denies it" in shop.json("n1", "explain", *DENIED, *live, code=1)["live"]["walks"][0]["drift"]
    shop.enforce()
    found = shop.json("n1", "explain", *DENIED, *live)
    assert [(walk["outcome"], walk["spared"]) for walk in found["live"]["walks"]] == [("accept", True)] * 2
    assert found["verdict"] == "denied" and any(
        "podfence.io/mode=audit" in note for note in found["answers"][0]["notes"]
    )


@pytest.mark.parametrize("where", ["--node", "--lab"])
def test_a_probe_is_one_packet_and_shows_the_rule_that_took_it(shop: Shop, where: str) -> None:
    place = (where, "n1" if where == "--node" else shop.lab.name)
    probed = shop.json("n1", "node", "probe", *DENIED, *place)
    assert (probed["outcome"], probed["wanted"], probed["agrees"]) == ("rejected", "denied", True)
    assert probed["took"][-1]["rule"].startswith("-j REJECT") and probed["took"][-1]["packets"] == 1
    probed = shop.json("n1", "node", "probe", *ALLOWED, *place)
    assert (probed["outcome"], probed["wanted"], probed["agrees"]) == ("refused", "allowed", True)
    assert probed["took"][-1]["rule"].endswith("-j RETURN")
    shop.on("n1", "node", "cleanup")
    probed = shop.json("n1", "node", "probe", *DENIED, *place, code=1)
    assert (probed["outcome"], probed["agrees"], probed["took"]) == ("refused", False, [])


@pytest.mark.parametrize("port", ["53/udp", "icmp"])
def test_probes_of_other_protocols(shop: Shop, port: str) -> None:
    probed = shop.json("n1", "node", "probe", *DENIED[:2], "--port", port, "--node", "n1")
    assert (probed["outcome"], probed["agrees"]) == ("rejected", True)


@pytest.mark.parametrize("flow", [DENIED, ALLOWED, ("shop/web-0", "shop/api-1", "--port", "9999")])
def test_a_fix_by_packets(shop: Shop, flow: tuple[str, ...]) -> None:
    """Before it, the packet does as the verdict says; with the patch applied and enforced, it does the other."""
    before = shop.json("n1", "node", "probe", *flow, "--node", "n1")
    fix = shop.json("n1", "explain", *flow, "--fix")["fix"]
    assert {before["wanted"], fix["turns"]} == {"allowed", "denied"}
    for number, text in enumerate(fix["policies"]):
        key = tuple(yaml.safe_load(text)["metadata"][field] for field in ("namespace", "name"))
        take_out(shop.folder, key)
        (shop.folder / f"fix-{number}.yaml").write_text(text)
    shop.enforce()
    after = shop.json("n1", "node", "probe", *flow, "--node", "n1")
    assert (after["wanted"], after["agrees"]) == (fix["turns"], True)


def take_out(folder: Path, key: tuple[str, str]) -> None:
    """The policy that a fix changes, which is there as it was."""
    for file in folder.glob("policies-*.yaml"):
        objects = [each for each in yaml.safe_load_all(file.read_text()) if each]
        kept = [each for each in objects if (each["metadata"].get("namespace"), each["metadata"]["name"]) != key]
        file.write_text(yaml.safe_dump_all(kept))
