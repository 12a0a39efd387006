"""What the programs of a node are told: their configuration files, as text."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import addresses, cni, images
from tests.cluster.certificates import Authority

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


def containerd() -> str:
    """Version 2 of its configuration. It may not lower its own OOM score without CAP_SYS_RESOURCE, so nor may pods."""
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{images.PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni.PLUGINS}"
conf_dir = "{cni.CONFIGURATIONS}"
"""


def kubelet(authority: Authority, name: str, cgroup: str) -> str:
    """Nothing is evicted, and the host's tunables are checked and never set."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(authority.certificate)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(authority.crt(name)),
            "tlsPrivateKeyFile": str(authority.key(name)),
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "protectKernelDefaults": True,
            "oomScoreAdj": 0,
            "failSwapOn": False,
            "resolvConf": "",
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "serializeImagePulls": False,
            "runtimeRequestTimeout": "2m",
        },
        indent=1,
    )


def kube_proxy(kubeconfig: Path, mode: str) -> str:
    """Conntrack's limits are the host's, and stay as they are."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "mode": mode,
            "clusterCIDR": addresses.joined(addresses.PODS),
            "oomScoreAdj": 0,
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        },
        indent=1,
    )
