"""What podfence reads of the API's objects, in the API's spelling: msgspec decodes bytes or trees into these.

Fields of no interest are skipped without being built.
"""

from __future__ import annotations

from typing import cast

from msgspec import Struct, defstruct

# ruff: noqa: N815 (the API's own spelling)


class _Skipped(Struct, gc=False):
    """An object of which nothing is read."""


class WireOwner(Struct, gc=False):
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class WireMeta(Struct, gc=False):
    """As the API server stores it, which has dropped what it does not know."""

    name: str | None = None
    generateName: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    uid: str | None = None
    deletionTimestamp: str | None = None
    ownerReferences: list[WireOwner] | None = None
    annotations: _Skipped | None = None
    creationTimestamp: str | None = None
    deletionGracePeriodSeconds: int | None = None
    finalizers: list[str] | None = None
    generation: int | None = None
    managedFields: list[_Skipped] | None = None
    resourceVersion: str | None = None
    selfLink: str | None = None


class WrittenMeta(WireMeta, gc=False, forbid_unknown_fields=True):
    """As somebody wrote it: a misspelt `lables` must not pass for a pod without labels."""


class WirePort(Struct, gc=False):
    """A container's, Service's or EndpointSlice's."""

    name: str | None = None
    protocol: str | None = None
    containerPort: int | None = None
    hostPort: int | None = None
    port: int | None = None
    targetPort: int | str | None = None
    nodePort: int | None = None


class WireContainer(Struct, gc=False):
    ports: list[WirePort] | None = None
    restartPolicy: str | None = None


class WireGate(Struct, gc=False):
    """A condition that a pod's readiness waits for."""

    conditionType: str | None = None


class WirePodSpec(Struct, gc=False):
    nodeName: str | None = None
    hostNetwork: bool | None = None
    containers: list[WireContainer] | None = None
    initContainers: list[WireContainer] | None = None
    readinessGates: list[WireGate] | None = None


class WireAddress(Struct, gc=False):
    """An entry of a pod's podIPs, or of a Node's addresses."""

    ip: str | None = None
    type: str | None = None
    address: str | None = None


class WirePodStatus(Struct, gc=False):
    phase: str | None = None
    podIP: str | None = None
    podIPs: list[WireAddress] | None = None


class WireObject(Struct, gc=False):
    """What every object has. `metadata` is None where it is absent."""

    metadata: WrittenMeta | None = None


class WirePod(WireObject, gc=False):
    spec: WirePodSpec | None = None
    status: WirePodStatus | None = None


class WireNamespace(WireObject, gc=False):
    pass


class WireTemplate(Struct, gc=False):
    metadata: WrittenMeta | None = None
    spec: WirePodSpec | None = None


class _WorkloadSpec(Struct, gc=False):
    template: WireTemplate | None = None


class WireWorkload(WireObject, gc=False):
    spec: _WorkloadSpec | None = None


class _JobTemplate(Struct, gc=False):
    spec: _WorkloadSpec | None = None


class _CronJobSpec(Struct, gc=False):
    jobTemplate: _JobTemplate | None = None


class WireCronJob(WireObject, gc=False):
    spec: _CronJobSpec | None = None


class WirePodTemplate(WireObject, gc=False):
    template: WireTemplate | None = None


class _ServiceSpec(Struct, gc=False):
    type: str | None = None
    selector: dict[str, str] | None = None
    clusterIP: str | None = None
    clusterIPs: list[str] | None = None
    externalName: str | None = None
    externalIPs: list[str] | None = None
    externalTrafficPolicy: str | None = None
    ports: list[WirePort] | None = None


class _LoadBalancer(Struct, gc=False):
    ingress: list[WireAddress] | None = None


class _ServiceStatus(Struct, gc=False):
    loadBalancer: _LoadBalancer | None = None


class WireService(WireObject, gc=False):
    spec: _ServiceSpec | None = None
    status: _ServiceStatus | None = None


class _Conditions(Struct, gc=False):
    ready: bool | None = None


class _TargetRef(Struct, gc=False):
    kind: str | None = None
    name: str | None = None


class WireEndpoint(Struct, gc=False):
    addresses: list[str] | None = None
    conditions: _Conditions | None = None
    targetRef: _TargetRef | None = None


class WireSlice(WireObject, gc=False):
    endpoints: list[WireEndpoint] | None = None
    ports: list[WirePort] | None = None


class _NodeSpec(Struct, gc=False):
    podCIDR: str | None = None
    podCIDRs: list[str] | None = None


class _NodeStatus(Struct, gc=False):
    addresses: list[WireAddress] | None = None


class WireNode(WireObject, gc=False):
    spec: _NodeSpec | None = None
    status: _NodeStatus | None = None


def as_stored(wire: type[WireObject]) -> type[WireObject]:
    """`wire` for what the API server sends: newer ones may have fields of metadata that are unknown here."""
    metadata = ("metadata", WireMeta | None, None)
    return cast("type[WireObject]", defstruct(f"Stored{wire.__name__}", [metadata], bases=(wire,), gc=False))
