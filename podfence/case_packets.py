"""Cases with packets: the cluster as a lab, its policies enforced on its nodes, and one probe for each flow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from compiler.compile import compile_cluster
from compiler.verdict import End, NodeEgress
from podfence.cases import Case
from podfence.ends import pairs
from podfence.judge import Judge, port_set
from podfence.test import Answer, Flow
from policy.errors import HostRefused, UsageError
from policy.model import PROTOCOLS, Cluster

if TYPE_CHECKING:
    from compiler.compile import Compiled
    from lab.cluster import Lab
    from lab.probe import Probe
    from lab.topology import Listen

# More ports of one case than these are not probed one by one.
_MOST_PORTS = 16


def send_cases(cases: Sequence[Case], cluster: Cluster, namespace: str, node_egress: NodeEgress) -> list[Answer]:
    """UsageError for a case that no packet can be sent for: without a port, or from an address that is no place."""
    from lab import netns
    from lab.cluster import Lab
    from podfence.lab import sent

    if not netns.privileged():
        raise HostRefused(f"packets need root; this gives a shell where there can be some: {netns.rootless_shell()}")
    listens: list[Listen] = [each for case in cases for each in _numbers(case)]
    with Lab(f"test-{os.getpid()}", cluster, list(dict.fromkeys(listens))) as lab:
        compiled = compile_cluster(lab.cluster)
        judge = Judge(compiled, namespace, node_egress)
        planned = [_probes(case, judge, lab) for case in cases]
        for node in lab.nodes:
            _enforce(lab, node, compiled, node_egress)
        results = iter(sent(lab, [probe for probes in planned for probe in probes]))
        return [
            _answer(case, len(probes), [next(results) for _ in probes])
            for case, probes in zip(cases, planned, strict=True)
        ]


def _numbers(case: Case) -> list[Listen]:
    """What all places must listen on; names stand for ports that pods listen on anyway."""
    if not case.ports:
        raise UsageError(f"{case.place.of()}: without a port no packet can be sent")
    found: list[Listen] = []
    for text in case.ports:
        if text[0].isdigit():
            ports = port_set(text, End())
            if ports.count > _MOST_PORTS:
                raise UsageError(f"{case.place.of('port')}: {ports.count} ports, expected at most {_MOST_PORTS}")
            found += [
                (protocol, number)
                for protocol in PROTOCOLS
                for low, high in ports.of(protocol)
                for number in range(low, high + 1)
            ]
    return found


def _probes(case: Case, judge: Judge, lab: Lab) -> list[Probe]:
    from lab.probe import Probe
    from lab.topology import OUTSIDE

    found = []
    flows = [(src, dst) for src, dst in judge.flows(case)]
    if case.only is not None and not {"outside", "internet"} & set(case.only):
        flows += [(judge.ends.find("internet"), dst) for dst in judge.destinations(case)]
    for src, dst in flows:
        for one, other in pairs(src, dst):
            place = one.pod.key if one.pod else one.node or (OUTSIDE if src.name == "internet" else "")
            if not place or other.address is None:
                raise UsageError(f"{case.place.of('from')}: {src.name}: no place of the lab that could send a packet")
            for text in case.ports:
                ports = port_set(text, other)
                if ports.other:
                    found.append(Probe(place, other.address, "ICMP", 0, other.address.family))
                for protocol in PROTOCOLS:
                    for low, high in ports.of(protocol):
                        found += [
                            Probe(place, other.address, protocol, number, other.address.family)
                            for number in range(low, high + 1)
                        ]
    return found


def _enforce(lab: Lab, node: str, compiled: Compiled, node_egress: NodeEgress) -> None:
    """What `podfence node apply` does there."""
    from enforcer.keeping.host import attached, execute, plans
    from enforcer.kernel.backend import detect
    from enforcer.rules.layout import NodeView

    blocks = next(each.pod_cidrs for each in lab.cluster.nodes if each.name == node)
    with lab.inside(node):
        backend = detect("auto")
        view = NodeView(node, attached(compiled, node, {}).veths, blocks, node_egress=node_egress)
        for family_plan in plans(backend, compiled, view):
            execute(backend, family_plan.steps)


def _answer(case: Case, flows: int, results: Sequence[object]) -> Answer:
    from lab.probe import Result

    wrong = []
    for result in results:
        assert isinstance(result, Result)
        passes = result.outcome in ("open", "refused")
        if passes is not (case.expect == "allow"):
            probe = result.probe
            port = "icmp" if probe.protocol == "ICMP" else f"{probe.port}/{probe.protocol.lower()}"
            wrong.append(Flow(probe.src, str(probe.dst), port, result.outcome.value))
    return Answer(case.name, str(case.place), "failed" if wrong else "passed", flows, wrong)
