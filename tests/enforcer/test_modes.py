"""Modes: what a label says, what the rules of a node in audit are, and no change of mode by way of a verdict that is
neither the old nor the new one."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from compiler.changes import Event
from compiler.compile import Compiled, compile_cluster
from enforcer.keeping.keep import Keeper
from enforcer.readback.simulate import Packet
from enforcer.readback.status import status
from enforcer.readback.verify import verify
from enforcer.rules.layout import NodeView, layout, local_pods
from enforcer.rules.modes import MODE_LABEL, Mode, mode_of, mode_problems
from enforcer.rules.parse import Installed
from enforcer.rules.plan import Actual, plan
from podfence.load import load
from policy.cidr import Family
from policy.decode import decode_objects, read_documents
from policy.model import Namespace
from tests.enforcer.fake import FakeDataplane
from tests.enforcer.test_golden import EXAMPLE, GOLDEN
from tests.enforcer.test_keep import FAMILIES, FakeKernel, view_of
from tests.enforcer.test_plan import CIDRS, OUTSIDE, interface, lively, packets, single

MODES: tuple[Mode, ...] = ("enforce", "audit", "off", "enforce", "off", "audit", "enforce")


def test_a_label_overrides_the_node() -> None:
    for node in ("enforce", "audit", "off"):
        assert mode_of({}, node) == node  # type: ignore[arg-type]
        for label in ("enforce", "audit", "off"):
            assert mode_of({MODE_LABEL: label}, node) == label  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["", "Off", "disabled", "audit "])
@pytest.mark.parametrize("node", ["enforce", "audit", "off"])
def test_what_is_no_mode_enforces_and_is_named(label: str, node: Mode) -> None:
    assert mode_of({MODE_LABEL: label}, node) == "enforce"
    (problem,) = mode_problems({"b": {MODE_LABEL: label}, "a": {}, "c": {MODE_LABEL: "off"}})
    assert problem.startswith("Namespace b: ") and repr(label) in problem


def clusters(seed: int) -> tuple[dict[str, Compiled], str]:
    """One cluster, with each mode as label of its only namespace, and with none."""
    objects = lively(Random(seed))
    found = {}
    for mode in ("", "enforce", "audit", "off"):
        namespace = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "a", "labels": {MODE_LABEL: mode}}}
        found[mode] = compile_cluster(decode_objects([*objects, *([namespace] if mode else [])]).cluster)
    return found, "n0"


@pytest.mark.parametrize("bridged", [False, True], ids=["routed", "bridged"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("by", ["node", "namespace"])
def test_every_step_between_modes_leaves_the_old_or_the_new_verdict(family: Family, by: str, bridged: bool) -> None:
    for seed in range(5):
        compiled_by, name = clusters(seed)
        veths = {pod.key: interface(pod) for pod in local_pods(compiled_by[""], name)}
        bridges = dict.fromkeys(veths.values(), "br0") if bridged else {}
        node = NodeView(name, veths, CIDRS, bridges=bridges)
        asked = packets(compiled_by[""], name, family, Random(seed))
        if bridged:
            asked = [(hook, on_a_bridge(packet, node)) for hook, packet in asked]
        dataplane = FakeDataplane(family)
        fresh = {mode: FakeDataplane(family) for mode in set(MODES)}
        wanted, meant = {}, {}
        for mode, plane in fresh.items():
            meant[mode] = (compiled_by[mode if by == "namespace" else ""], node)
            if by == "node":
                meant[mode] = (compiled_by[""], replace(node, mode=mode))
            wanted[mode] = layout(*meant[mode], family)
            plane.execute(plan(plane.read(), wanted[mode]))
        dataplane.execute(plan(dataplane.read(), wanted[MODES[0]]))
        for old, new in pairwise(MODES):
            before, after = (fresh[mode].verdicts(asked) for mode in (old, new))
            for step in single(plan(dataplane.read(), wanted[new])):
                dataplane.step(step)
                now = dataplane.verdicts(asked)
                assert all(n in (b, a) for n, b, a in zip(now, before, after, strict=True)), (seed, old, new)
            assert dataplane.verdicts(asked) == after
            assert plan(dataplane.read(), wanted[new]) == ()
            assert verify(dataplane.read(), *meant[new]) is None, (seed, new)
        if by == "node":
            assert all(fresh[mode].verdicts(asked) == [True] * len(asked) for mode in ("audit", "off"))
            assert not fresh["off"].chains and not fresh["off"].sets


def on_a_bridge(packet: Packet, node: NodeView) -> Packet:
    """The same packet where pods are behind ports."""
    ports = node.bridges
    came, goes = packet.in_interface, packet.out_interface
    in_port, out_port = (name if name in ports else "" for name in (came, goes))
    return replace(
        packet,
        in_interface=ports.get(came, came),
        out_interface=ports.get(goes, goes),
        in_port=in_port,
        out_port=out_port if in_port else "",
    )


ENDS = """
{kind: Namespace, apiVersion: v1, metadata: {name: tried, labels: {podfence.io/mode: audit}}}
---
{kind: Pod, apiVersion: v1, metadata: {name: a, namespace: tried}, spec: {nodeName: n1}, status: {podIP: 10.1.0.1}}
---
{kind: Pod, apiVersion: v1, metadata: {name: b, namespace: firm}, spec: {nodeName: n1}, status: {podIP: 10.1.0.2}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: tried}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: firm}
spec: {podSelector: {}}
"""


def test_each_end_follows_its_own_mode() -> None:
    """What the end in audit lets go on is still denied by the other one."""
    compiled = compile_cluster(read_documents(ENDS.encode(), "x").cluster)
    node = NodeView("n1", {"tried/a": "va", "firm/b": "vb"}, CIDRS)
    dataplane = FakeDataplane(4)
    dataplane.execute(plan(dataplane.read(), layout(compiled, node, 4)))
    a, b = (compiled.pods[key].addresses[0] for key in ("tried/a", "firm/b"))
    assert not dataplane.passes("FORWARD", Packet(a, b, "tcp", 80, "va", "vb"))
    assert dataplane.passes("FORWARD", Packet(b, a, "tcp", 80, "vb", "va"))
    assert not dataplane.passes("FORWARD", Packet(a, OUTSIDE[4], "tcp", 80, "vb", "eth0")), "attachments are checked"


def test_a_keeper_follows_the_label_of_a_namespace() -> None:
    found = decode_objects(lively(Random(3))).cluster
    events: list[Event] = [*found.namespaces, *found.pods, *found.policies]
    view = view_of(events, "n0")
    kernel = FakeKernel()
    keeper = Keeper(view, FAMILIES, kernel)
    keeper.start(events)
    for mode in ("audit", "off", "enforce", None, "audit", "nonsense"):
        labels = {"kubernetes.io/metadata.name": "a"} | ({MODE_LABEL: mode} if mode else {})
        namespace = Namespace("a", labels)
        keeper.handle([namespace])
        spaces = [each for each in found.namespaces if each.name != "a"] + [namespace]
        compiled = compile_cluster(replace(found, namespaces=spaces))
        wishes = {family: layout(compiled, view, family) for family in FAMILIES}
        assert all(plan(kernel.read(family), wishes[family], lazily=True) == () for family in FAMILIES), mode
        keeper.tidy()
        assert all(plan(kernel.read(family), wishes[family]) == () for family in FAMILIES), mode
        wanted = "enforce" if mode in (None, "nonsense") else mode
        audited = [name for name in kernel.planes[4].sets if "-audited" in name]
        assert bool(audited) is (wanted == "audit")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rules_of_the_example_in_audit(family: Family) -> None:
    compiled = compile_cluster(load([str(EXAMPLE)]).cluster)
    (node,) = (node for node in compiled.cluster.nodes if node.name == "n1")
    veths = {pod.key: f"veth-{pod.name}" for pod in local_pods(compiled, "n1")}
    view = NodeView("n1", veths, node.pod_cidrs, mode="audit")
    text = "\n".join(step.text for step in plan(Actual(family, Installed({}, {}), {}), layout(compiled, view, family)))
    golden: Path = GOLDEN / f"shop-n1-audit-ipv{family}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize(("mode", "said"), [("enforce", "enforce"), ("audit", "audit"), ("off", "off")])
def test_status_says_the_mode(mode: Mode, said: str) -> None:
    compiled_by, name = clusters(1)
    dataplane = FakeDataplane(4)
    dataplane.execute(plan(dataplane.read(), layout(compiled_by[""], NodeView(name, {}, mode=mode), 4)))
    assert status(dataplane.read()).mode == said
