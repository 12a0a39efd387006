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
# A frame that has a tag for its priority alone (VLAN 0) is taken by whoever gets it as if it had none.
_TAGGED = "bridge-nf-filter-vlan-tagged"


def bridge_filtering(families: Iterable[Family]) -> str | None:
    """What keeps packets between ports of a bridge from iptables, with the command that mends it; None where nothing
    does. What is wrong here makes bridged pods impossible to enforce."""
    if not _FOLDER.is_dir():
        return "iptables does not see what bridges forward: br_netfilter is not loaded; load it: modprobe br_netfilter"
    wanted = [*(_CALLS[family] for family in families), _TAGGED]
    missing = [f"net.bridge.{name}=1" for name in wanted if (_FOLDER / name).read_text().strip() != "1"]
    if not missing:
        return None
    return f"iptables does not see all that bridges forward; set it: sysctl -w {' '.join(missing)}"
