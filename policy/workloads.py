"""Workloads in files stand for the pods that they would make (semantics, row 38): one pod each, whatever `replicas`
says, since replicas are equal. Its name is the workload's, `deploy/web`, which no real pod can have."""

from __future__ import annotations

from collections.abc import Mapping

from policy.decode_parts import labels_of
from policy.decode_pod import WORKLOADS, container_ports
from policy.decode_wire import WireCronJob, WireObject, WirePodTemplate, WireTemplate, WireWorkload
from policy.model import Labels, Pod
from policy.source import Path
from policy.validate import Report


def stand_in(wire: WireObject, kind: str, namespace: str, name: str, report: Report) -> Pod | None:
    """The pod that `wire` would make: none without a template. Labels that its controller adds are there where they
    can be known."""
    template, path = _template(wire)
    if template is None:
        report.say(path, "missing, expected the template of its pods")
        return None
    spec = template.spec
    labels = labels_of(template.metadata, (*path, "metadata"), report)
    workload = f"{WORKLOADS[kind]}/{name}"
    return Pod(
        namespace=namespace,
        name=workload,
        labels={**labels, **_job_labels(kind, name)},
        node=(spec and spec.nodeName) or "",
        ports=container_ports(spec, (*path, "spec"), report) if spec else (),
        host_network=bool(spec and spec.hostNetwork),
        workload=workload,
        source=report.source,
    )


def _template(wire: WireObject) -> tuple[WireTemplate | None, Path]:
    if isinstance(wire, WirePodTemplate):
        return wire.template, ("template",)
    if isinstance(wire, WireCronJob):
        job = wire.spec.jobTemplate.spec if wire.spec and wire.spec.jobTemplate else None
        return job.template if job else None, ("spec", "jobTemplate", "spec", "template")
    assert isinstance(wire, WireWorkload)
    return wire.spec.template if wire.spec else None, ("spec", "template")


def _job_labels(kind: str, name: str) -> Labels:
    return {"batch.kubernetes.io/job-name": name, "job-name": name} if kind == "Job" else {}


def top_workload(workload: str, namespace: str, owners: Mapping[tuple[str, str], str]) -> str:
    """The workload at the top of the chain from `workload`, through `owners`: (namespace, owned) to owner."""
    seen = set()
    while workload not in seen and (owner := owners.get((namespace, workload))):
        seen.add(workload)
        workload = owner
    return workload
