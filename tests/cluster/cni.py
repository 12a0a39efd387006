"""How pods get their interfaces: the configuration that containerd hands to the reference CNI plugins.

`ptp` gives each pod a veth of its own, routed; `bridge` makes the veths ports of one bridge, `cni0`. Both with one
address of each family from the node's own ranges, which other nodes reach by plain routes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

Kind = Literal["ptp", "bridge"]
PLUGINS = "/usr/lib/cni"
CONFIGURATIONS = "/etc/cni/net.d"
FILE = f"{CONFIGURATIONS}/10-cluster.conflist"
_BRIDGE = {"bridge": "cni0", "isGateway": True, "hairpinMode": True}


def configuration(kind: Kind, pod_cidrs: Sequence[str]) -> str:
    """For a node whose pods get their addresses from `pod_cidrs`."""
    interface = {
        "type": kind,
        **(_BRIDGE if kind == "bridge" else {}),
        "ipMasq": False,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": cidr}] for cidr in pod_cidrs],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    }
    port_map = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "cluster", "plugins": [interface, port_map]}, indent=1)
