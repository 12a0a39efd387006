"""Each fix turns the verdict that it was asked for, when it is written, read again and compiled; and what it says of
other flows is all that it changes."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from compiler.blast import name_of
from compiler.verdict import Flow
from podfence.asking import Asking, Port
from podfence.ends import Ends
from podfence.fixes import fix
from policy.decode import read_documents
from tests.engine import Engine
from tests.oracle import End, Oracle
from tests.oracle import Flow as OracleFlow
from tests.oracle.fields import Object, is_pod
from tests.proof.compare import case


def asking_of(objects: list[Object]) -> Asking:
    compiled = Engine(objects).compiled
    return Asking(compiled, Ends(compiled))


def applied(objects: list[Object], policies: list[str]) -> list[Object]:
    trees = [yaml.safe_load(text) for text in policies]
    keys = {(tree["metadata"]["namespace"], tree["metadata"]["name"]) for tree in trees}
    kept = [
        each
        for each in objects
        if each["kind"] != "NetworkPolicy" or (each["metadata"]["namespace"], each["metadata"]["name"]) not in keys
    ]
    return [*kept, *trees]


@pytest.mark.parametrize("part", range(4))
def test_over_random_clusters(part: int) -> None:
    """Asked of the oracle, which shares nothing with what made the fix."""
    seen: Counter[str] = Counter()
    for seed in range(7500 + 10 * part, 7510 + 10 * part):
        _one_cluster(seed, seen)
    assert min(seen["allowed"], seen["denied"]) > 5, seen


def _one_cluster(seed: int, seen: Counter[str]) -> None:
    objects, flows, _ = case(seed, 12)
    asking = asking_of(objects)
    for flow in flows:
        if not (flow.src.pod and flow.dst.pod and flow.protocol != "ICMP"):
            continue
        src, dst = asking.ends.find(flow.src.pod), asking.ends.find(flow.dst.pod)
        if {end.address.family for end in src.ends if end.address}.isdisjoint(
            end.address.family for end in dst.ends if end.address
        ):
            continue
        found, said = fix(asking, src, dst, Port("", flow.protocol, flow.port))
        if found is None:
            assert said
            continue
        seen[found.turns] += 1
        changed = applied(objects, found.policies)
        oracle, before = Oracle(changed), Oracle(objects)
        for one in asking.flows(src, dst, Port("", flow.protocol, flow.port)):
            assert all(oracle.verdict(_oracle_flow(one))) is (found.turns == "allowed")
        asked = {(name_of(a.pod), name_of(b.pod)) for a, b in [(src.ends[0], dst.ends[0])] if a.pod and b.pod}
        _check_blast(objects, before, oracle, found.opens, found.closes, asked, flow.protocol, flow.port)


def _oracle_flow(flow: Flow) -> OracleFlow:
    src, dst = (End(str(end.address), end.pod.key if end.pod else "") for end in (flow.src, flow.dst))
    return OracleFlow(src, dst, flow.protocol, flow.port)


def _check_blast(
    objects: list[Object],
    before: Oracle,
    after: Oracle,
    opens: list[str],
    closes: list[str],
    asked: set[tuple[str, str]],
    protocol: str,
    port: int,
) -> None:
    """On the asked port, and on another, between every two pods."""
    pods = [each for each in objects if each["kind"] == "Pod" and is_pod(each)]
    for one in pods:
        for other in pods:
            for address in one["status"].get("podIPs", []):
                for target in other["status"].get("podIPs", []):
                    if one is other or (":" in address["ip"]) != (":" in target["ip"]):
                        continue
                    names = tuple(
                        f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in (one, other)
                    )
                    for number in (port, 12345):
                        flow = OracleFlow(End(address["ip"], names[0]), End(target["ip"], names[1]), protocol, number)
                        was, now = all(before.verdict(flow)), all(after.verdict(flow))
                        if was == now or (names in asked and number == port):
                            continue
                        listed = opens if now else closes
                        assert any(line.startswith(f"{names[0]} -> {names[1]} on ") for line in listed), flow


FILE = """\
# Kept by hand.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
    # The shop window.
    - from:
        - podSelector:
            matchLabels: {app: web}  # one of ours
      ports:
        - port: 80   # plain

    # Nobody else.
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: job, namespace: batch, labels: {app: job}}, status: {podIP: 10.0.0.3}}
"""


@pytest.mark.parametrize(
    ("src", "port", "turns"), [("shop/web", 8080, "allowed"), ("batch/job", 80, "allowed"), ("shop/web", 80, "denied")]
)
def test_a_patch_applies_and_keeps_comments(podfence_in, tmp_path: Path, src: str, port: int, turns: str) -> None:
    (tmp_path / "shop.yaml").write_text(FILE)
    said = podfence_in(tmp_path, "explain", src, "shop/api", "--port", port, "-f", "shop.yaml", "--fix", "-o", "json")
    (patch,) = yaml.safe_load(said)["fix"]["patches"]
    done = subprocess.run(["patch", "-p1"], input=patch, text=True, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    changed = (tmp_path / "shop.yaml").read_text()
    assert {line for line in FILE.splitlines() if "#" in line} - set(changed.splitlines()) <= (
        {"            matchLabels: {app: web}  # one of ours", "        - port: 80   # plain", "    # The shop window."}
        if turns == "denied"
        else set()
    )
    podfence_in(
        tmp_path,
        "explain",
        src,
        "shop/api",
        "--port",
        port,
        "-f",
        "shop.yaml",
        "--expect",
        "allow" if turns == "allowed" else "deny",
    )


@pytest.fixture
def podfence_in(podfence):
    def run(folder: Path, *arguments: object) -> str:
        import os

        before = Path.cwd()
        os.chdir(folder)
        try:
            ran = podfence(*arguments, PYTHONPATH=str(before))
        finally:
            os.chdir(before)
        assert ran.returncode == 0, ran.stderr + ran.stdout
        return ran.stdout

    return run


def test_json_files_are_patched_too(podfence_in, tmp_path: Path) -> None:
    import json

    objects = list(yaml.safe_load_all(FILE))
    (tmp_path / "shop.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, indent=2))
    flow = ("explain", "shop/web", "shop/api", "--port", 8080, "-f", "shop.json")
    said = podfence_in(tmp_path, *flow, "--fix", "-o", "json")
    (patch,) = json.loads(said)["fix"]["patches"]
    subprocess.run(["patch", "-p1"], input=patch, text=True, cwd=tmp_path, capture_output=True, check=True)
    podfence_in(tmp_path, *flow, "--expect", "allow")


def test_what_no_policy_turns() -> None:
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "x"},
        "spec": {"nodeName": "n"},
        "status": {"podIP": "10.0.0.1"},
    }
    asking = asking_of([pod])
    end = asking.ends.find("x/a")
    found, said = fix(asking, end, end, Port("80", "TCP", 80))
    assert found is None
    assert "no policy can turn this" in said[0]


def test_reading_what_was_written_gives_the_same_policy() -> None:
    from policy.edit import block_text
    from policy.write import manifest

    count = 0
    for seed in range(60):
        for policy in Engine(case(seed, 1)[0]).compiled.cluster.policies:
            tree = manifest(policy)
            if tree is None:
                assert any(not rule.understood for rule in (*policy.ingress, *policy.egress))
                continue
            (again,) = read_documents(block_text(tree).encode(), "").cluster.policies
            for direction in policy.isolates:
                assert again.rules(direction) == policy.rules(direction)
            assert (again.subjects, again.isolates) == (policy.subjects, policy.isolates)
            count += 1
    assert count > 100
