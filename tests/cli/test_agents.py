"""From a laptop through the agents, on real kernels: `explain --live` on both ends' nodes, with what differs between
our files, the API server and a kernel; and `rehearse` of every node's connections."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cli.laptop import Laptop
from tests.cli.test_explain_live import ALLOWED, DENIED, EXAMPLE, Shop, enforced, take_out
from tests.enforcer.connections import connection
from tests.semantics.world import pod

pytestmark = pytest.mark.kernel
SCHEMA = Path(__file__).parents[2] / "docs/schemas/explain-v1.json"
ACROSS = ("shop/web-0", "shop/api-1", "--port", "9090")


def policies(folder: Path) -> list[dict[str, Any]]:
    trees = (tree for file in sorted(folder.glob("*.yaml")) for tree in yaml.safe_load_all(file.read_text()))
    return [tree for tree in trees if tree and tree["kind"] == "NetworkPolicy"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with enforced(tmp_path_factory.mktemp("agents") / "shop") as made:
        yield made


@pytest.fixture
def laptop(shop: Shop, tmp_path: Path) -> Iterator[Laptop]:
    with Laptop(shop.lab, policies(EXAMPLE), tmp_path).online() as made:
        yield made


@contextmanager
def told(laptop: Laptop, name: str, **spec: Any) -> Iterator[None]:
    """While the API server tells another spec of the policy shop/NAME."""
    where = {"namespace": "shop", "name": name}
    (tree,) = [
        each for each in laptop.objects if each["kind"] == "NetworkPolicy" and where.items() <= each["metadata"].items()
    ]
    before = tree["spec"]
    tree["spec"] = {**before, **spec}
    try:
        yield
    finally:
        tree["spec"] = before


def test_both_ends_nodes_are_walked(laptop: Laptop) -> None:
    found = laptop.json("explain", *ACROSS, "--live")
    jsonschema.validate(found, json.loads(SCHEMA.read_text()))
    assert found["verdict"] == "allowed"
    assert "unseen" not in found["live"]
    walks = found["live"]["walks"]
    ways = sorted((walk["node"], walk["family"], walk["outcome"]) for walk in walks)
    assert ways == [(node, family, "accept") for node in ("n1", "n2") for family in (4, 6)]
    assert all(walk["steps"][0]["chain"] == "PODFENCE-FORWARD" and "drift" not in walk for walk in walks)
    text = laptop.run("explain", *DENIED, "--live", "-f", EXAMPLE).stdout
    assert text.count("KERNEL of n1, IPv4, FORWARD: reject, as the policies say") == 1
    assert "DRIFT" not in text and "-j REJECT" in text


def test_the_walk_is_the_one_that_the_node_itself_shows(shop: Shop, laptop: Laptop) -> None:
    for flow in (DENIED, ALLOWED):
        here = shop.json("n1", "explain", *flow, "--live", "--node", "n1")["live"]["walks"]
        there = laptop.json("explain", *flow, "--live")["live"]["walks"]
        assert [(walk["node"], walk["outcome"]) for walk in there] == [(walk["node"], walk["outcome"]) for walk in here]
        assert [[step["rule"] for step in walk["steps"]] for walk in there] == [
            [step["rule"] for step in walk["steps"]] for walk in here
        ]


def test_where_the_kernel_does_otherwise_than_the_api_server_says(laptop: Laptop) -> None:
    """Of the two nodes, the one that decides is named."""
    with told(laptop, "api", ingress=[]), told(laptop, "metrics", ingress=[]):
        found = laptop.json("explain", *ALLOWED, "--live", code=1)
    assert found["verdict"] == "denied"
    assert {walk["node"]: walk["drift"] for walk in found["live"]["walks"]} == {
        "n1": "the objects deny this flow, and the kernel lets it pass: `podfence node plan` shows what is different"
    }


def test_where_the_files_differ_from_the_api_server(laptop: Laptop, tmp_path: Path) -> None:
    """Which follows the kernel, so that nothing is wrong with the node."""
    closed = tmp_path / "api.yaml"
    (api,) = [each for each in policies(EXAMPLE) if each["metadata"]["name"] == "api"]
    closed.write_text(yaml.safe_dump({**api, "spec": {**api["spec"], "ingress": []}}))
    for arguments, ours in (
        (("-f", EXAMPLE, "--with", closed), "the objects with the change"),
        (("--with", closed), "the objects with the change"),
    ):
        found = laptop.json("explain", *ALLOWED, "--live", *arguments, code=1)
        assert found["verdict"] == "denied"
        assert {walk["drift"] for walk in found["live"]["walks"]} == {
            f"{ours} deny this flow, and what the API server tells the node allows it"
        }
    with told(laptop, "api", ingress=[]), told(laptop, "metrics", ingress=[]):
        found = laptop.json("explain", *ALLOWED, "--live", "-f", EXAMPLE, code=1)
    assert found["verdict"] == "allowed"
    (drift,) = {walk["drift"] for walk in found["live"]["walks"]}
    assert drift == (
        "the files allow this flow, and what the API server tells the node denies it; the objects deny this flow, and "
        "the kernel lets it pass: `podfence node plan` shows what is different"
    )


def test_a_node_that_cannot_be_asked_is_said_to_be_unseen(laptop: Laptop) -> None:
    gone = laptop.objects.pop()
    assert gone["metadata"]["name"] == "agent-n2"
    try:
        live = laptop.json("explain", *ACROSS, "--live")["live"]
        assert {walk["node"] for walk in live["walks"]} == {"n1"}
        assert live["unseen"] == ["node n2: no agent of podfence is on it, in namespace podfence-system"]
        ran = laptop.run("explain", *ACROSS, "--live", "--agents-namespace", "elsewhere", code=3)
        assert "node n1: no agent of podfence is on it, in namespace elsewhere" in ran.stderr
    finally:
        laptop.objects.append(gone)
    laptop.server.refuse = ("/exec",)
    ran = laptop.run("explain", *ACROSS, "--live", code=3)
    assert "node n1: exec: Handshake status 403 Forbidden" in ran.stderr


def test_a_pod_that_only_the_files_know(laptop: Laptop, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump(pod("shop/more", ["10.20.1.99"], "n1", app="web")))
    ran = laptop.run("explain", "shop/more", "shop/api-0", "--port", "8080", "--live", "--with", more, code=3)
    assert "node n1: no pod, workload, Service or node is called 'shop/more'" in ran.stderr


@pytest.fixture
def proposed(tmp_path: Path) -> Path:
    """The worker is no longer among those who may call the API."""
    (api,) = [each for each in policies(EXAMPLE) if each["metadata"]["name"] == "api"]
    file = tmp_path / "new.yaml"
    text = yaml.safe_dump(api)
    assert "- worker\n" in text
    file.write_text("\n".join(each for each in text.splitlines() if each.strip() != "- worker"))
    return file


def test_every_nodes_connections_are_rehearsed(shop: Shop, laptop: Laptop, proposed: Path, tmp_path: Path) -> None:
    with (
        connection(shop, "shop/worker-0", "shop/api-0", port=8080) as one,
        connection(shop, "shop/web-0", "shop/api-1", port=9090),
    ):
        ran = laptop.run("rehearse", "--agents", "-f", proposed, "-o", "json", "--exit-code", code=1)
        first, second = json.loads(ran.stdout)
        one.alive()
        assert (first["node"], second["node"], second["rehearsed"]["cut"]) == ("n1", "n2", 0)
        (cut,) = first["rehearsed"]["connections"]
        assert (cut["src"], cut["dst"], cut["port"], cut["count"]) == ("shop/worker-0", "shop/api-0", 8080, 1)
        assert ("ingress", "shop/api", str(proposed)) in {
            (by["direction"], by["policy"], by.get("file", "")) for by in cut["by"]
        }
        text = laptop.run("rehearse", "--agents", "-f", proposed, "--node", "n1").stdout
        assert text.splitlines()[0] == "node n1 cuts 1 connection in the table now:"
        # What the node itself says where it is given all of the files.
        shutil.copytree(shop.folder, tmp_path / "whole")
        take_out(tmp_path / "whole", ("shop", "api"))
        here = json.loads(
            shop.on("n1", "rehearse", "--node", "n1", "-f", tmp_path / "whole", "-f", proposed, "-o", "json")
        )
        assert [each["count"] for each in here["connections"]] == [1]
        assert [each["policy"] for each in here["connections"][0]["by"]] == [each["policy"] for each in cut["by"]]
    # Nothing was changed.
    assert laptop.json("explain", "shop/worker-0", "shop/api-0", "--port", "8080")["verdict"] == "allowed"


def test_what_audit_has_counted_is_told(shop: Shop, laptop: Laptop, proposed: Path) -> None:
    shop.enforce("audit")
    try:
        shop.json("n1", "node", "probe", *DENIED, "--node", "n1")
        answers = laptop.json("rehearse", "--agents", "-f", proposed)
        audited = {each["node"]: each["rehearsed"]["audited"] for each in answers}
        assert {(each["pod"], each["direction"]) for each in audited["n1"]} == {
            ("shop/web-0", "egress"),
            ("data/db-0", "ingress"),
        }
        assert audited["n2"] == []
        text = laptop.run("rehearse", "--agents", "-f", proposed, "--node", "n1").stdout
        assert "packets that audit has let pass" in text and "egress of shop/web-0 (10.20.1.10)" in text
    finally:
        shop.enforce()


def test_a_node_that_cannot_be_asked_leaves_it_unknown(laptop: Laptop, proposed: Path) -> None:
    laptop.server.agents.pop("agent-n2")
    ran = laptop.run("rehearse", "--agents", "-f", proposed, code=3)
    assert "node n2: not seen: exec: " in ran.stdout and "node n1 cuts " in ran.stdout
    assert "node n2: exec: " in ran.stderr
    laptop.run("rehearse", "--agents", "-f", proposed, "--node", "n1")
    assert (
        "no agent of podfence on node n9"
        in laptop.run("rehearse", "--agents", "-f", proposed, "--node", "n9", code=3).stderr
    )
    laptop.server.refuse = ("networkpolicies",)
    ran = laptop.run("rehearse", "--agents", "-f", proposed, "--node", "n1", code=3)
    assert ran.stdout == "" and "403 Forbidden" in ran.stderr
