"""Whether the node's iptables see what its bridges forward.

Asked of the network namespace that the thread is in. Nothing is changed: these sysctls are global to it, and whoever
made the bridge (the CNI plugin, the operator) sets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from policy.cidr import Family

_FOLDER = Path("/proc/sys/net/bridge")
_CALLS: dict[Family, str] = {4: "bridge-nf-call-iptables", 6: "bridge-nf-call-ip6tables"}
_TAGGED = "bridge-nf-filter-vlan-tagged"


def bridge_filtering(families: Iterable[Family]) -> str | None:
    """What keeps packets between ports of a bridge from iptables, with the command that mends it; None where nothing
    does. What is wrong here makes bridged pods impossible to enforce."""
    if not _FOLDER.is_dir():
        return "iptables does not see what bridges forward: br_netfilter is not loaded; load it: modprobe br_netfilter"
    missing = [f"net.bridge.{_CALLS[family]}=1" for family in families if not _is_on(_CALLS[family])]
    if not missing:
        return None
    return f"iptables does not see all that bridges forward; set it: sysctl -w {' '.join(missing)}"


def tags_pass_by() -> str | None:
    """What lets frames with a VLAN tag by, with the command that mends it; None where nothing does. Only a pod that may
    make frames of its own (CAP_NET_RAW) can send one, and a receiver takes a tag of VLAN 0 as if there were none. It is
    the kernel's default, so it is said, and keeps nobody from enforcing all else."""
    if not _FOLDER.is_dir() or _is_on(_TAGGED):
        return None
    return f"bridged pods with CAP_NET_RAW get by with VLAN-tagged frames; set it: sysctl -w net.bridge.{_TAGGED}=1"


def _is_on(name: str) -> bool:
    try:
        return (_FOLDER / name).read_text().strip() == "1"
    except OSError:
        return False
