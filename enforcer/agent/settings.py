"""What an agent is told at its start; validated by the command line before the agent begins."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from compiler.verdict import NodeEgress
from enforcer.kernel.backend import Mode as BackendMode
from enforcer.rules.base import DEFAULT_MARK
from enforcer.rules.modes import Mode
from policy.cidr import Prefix


class Settings(Struct, frozen=True, kw_only=True):
    """`interfaces`: pod key to interface, for pods that are not found by themselves. `host_interfaces`: names of links
    that are no pod's, whatever they look like; a trailing * stands for any rest. `files`: manifests instead of an API
    server. `listen` is "" for none. Times are in seconds."""

    node: str
    backend: BackendMode | Literal["auto"] = "auto"
    mode: Mode = "enforce"
    unknown: Literal["closed", "open"] = "closed"
    node_egress: NodeEgress = "enforce"
    deny: Literal["reject", "drop"] = "reject"
    existing_flows: Literal["end", "keep"] = "end"
    log_group: int = 100
    mark: int = DEFAULT_MARK
    pod_cidrs: tuple[Prefix, ...] = ()
    interfaces: dict[str, str] = {}
    host_interfaces: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    recursive: bool = False
    kubeconfig: str | None = None
    context: str | None = None
    listen: str = "127.0.0.1:9470"
    state_dir: str = "/run/podfence"
    cni_results: str = "/var/lib/cni/results"
    resync: float = 60.0
    handover: float = 30.0
    taint: bool = True
