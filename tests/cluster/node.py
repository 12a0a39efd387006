"""A node: a machine of the cluster with containerd, kubelet and kube-proxy, and the pods on it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import addresses, cni, configuration, state
from tests.cluster.certificates import Authority
from tests.cluster.control import until
from tests.cluster.errors import ClusterFailed
from tests.cluster.namespaces import Place, children_with

_SCRIPT = Path(__file__).parent / "machine.sh"
_TASKS = "run/containerd/io.containerd.runtime.v2.task/k8s.io"


class Node(Place):
    """Its namespaces live as long as the cluster. Pods with `hostNetwork` are in its network namespace, and a
    `hostPath` below /run, /var/lib, /var/log or /etc is the node's own."""

    def __init__(self, number: int, name: str, pid: int, logs: Path) -> None:
        super().__init__(name, pid, logs)
        self.number = number
        self.addresses = addresses.of_node(number)
        self.pod_cidrs: tuple[str, ...] = ()
        self.processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    def make_network(self) -> None:
        """Addresses on `eth0`, a default route so that services' addresses have one, and a router's settings."""
        four, six = self.addresses
        four_bits, six_bits = addresses.LINK_PREFIXES
        self.ip(
            "link set lo up",
            f"addr add {four}/{four_bits} dev eth0",
            f"addr add {six}/{six_bits} dev eth0 nodad",
            "link set eth0 up",
            f"route add default via {addresses.CONTROL[0]}",
            f"route add ::/0 via {addresses.CONTROL[1]}",
        )
        wanted = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
        if (self.root / "proc/sys/net/bridge").exists():
            wanted += ["net.bridge.bridge-nf-call-iptables=1", "net.bridge.bridge-nf-call-ip6tables=1"]
        self.run(["sysctl", "-qw", *wanted])

    def ip(self, *commands: str) -> None:
        """Commands of `ip`, as one batch."""
        self.run(["ip", "-batch", "-"], "\n".join(commands))

    def start_containerd(self, images: Sequence[Path]) -> None:
        """containerd, with images to start with."""
        self._configure("containerd/config.toml", configuration.containerd())
        self._start("containerd", ["containerd", "--config=/etc/containerd/config.toml"])
        socket = self.root / configuration.CONTAINERD_SOCKET[1:]
        until(f"containerd on {self.name}", socket.exists, 20, lambda: self.log(f"{self.name}-containerd"))
        for image in images:
            self.load_image(image)

    def load_image(self, tar: Path) -> None:
        """Every image of a tar (OCI layout, or as `docker save` writes it); pods name it, `imagePullPolicy: Never`."""
        self.run(["ctr", "--namespace=k8s.io", "images", "import", "-"], tar.read_bytes(), timeout=300)

    def configure_pods(self, kind: cni.Kind, pod_cidrs: Sequence[str]) -> None:
        """Pods get their addresses from these ranges."""
        self.pod_cidrs = tuple(pod_cidrs)
        self._configure(cni.FILE.removeprefix("/etc/"), cni.configuration(kind, pod_cidrs))

    def start_kubernetes(self, kube: Path, authority: Authority, cluster: str, proxy_mode: str) -> None:
        """kubelet and kube-proxy."""
        authority.issue(self.name, f"system:node:{self.name}", "system:nodes", [self.name, *self.addresses])
        cgroup = state.cgroup(cluster, self.name)
        self._configure("kubernetes/kubelet.json", configuration.kubelet(authority, self.name, cgroup))
        kubelet = [
            f"--kubeconfig={authority.kubeconfig(self.name)}",
            "--config=/etc/kubernetes/kubelet.json",
            f"--hostname-override={self.name}",
            f"--node-ip={addresses.joined(self.addresses)}",
        ]
        self._start("kubelet", [str(kube), "kubelet", *kubelet])
        settings = configuration.kube_proxy(authority.kubeconfig("proxy"), proxy_mode)
        self._configure("kubernetes/kube-proxy.json", settings)
        proxy = ["--config=/etc/kubernetes/kube-proxy.json", f"--hostname-override={self.name}"]
        self._start("kube-proxy", [str(kube), "kube-proxy", *proxy])

    def container_netns(self, container: str) -> Path:
        """The network namespace of a running container, by its id at containerd."""
        return self.root / f"proc/{self.container_pid(container)}/ns/net"

    def container_pid(self, container: str) -> int:
        """A running container's first process, in the PID namespace of the cluster."""
        try:
            return int((self.root / _TASKS / container / "init.pid").read_text())
        except (OSError, ValueError) as error:
            raise ClusterFailed(f"{self.name} runs no container {container}: {error}") from error

    def _configure(self, path: str, text: str) -> None:
        """Writes a file below the node's /etc."""
        file = self.root / "etc" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _start(self, name: str, argv: Sequence[str]) -> None:
        self.processes.append((f"{self.name}-{name}", self.start(argv, f"{self.name}-{name}")))


def make(number: int, control: Place, folder: Path, iptables: str, logs: Path) -> Node:
    """The namespaces of a node, with its mounts made; see machine.sh for those."""
    name = f"node-{number}"
    (folder / name).mkdir()
    namespaces = ["--target", str(control.pid), "--mount", "--", "unshare", "--mount", "--net", "--uts", "--"]
    argv = ["nsenter", *namespaces, "sh", str(_SCRIPT), str(folder / name), name, iptables]
    log = logs / f"{name}.log"
    with open(log, "wb") as output, children_with(control.pid):
        holder = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, start_new_session=True
        )
    node = Node(number, name, holder.pid, logs)
    node.processes.append((name, holder))
    assert holder.stdout
    with holder.stdout:
        if holder.stdout.readline() != b"ready\n":
            holder.wait()
            raise ClusterFailed(f"{name} can't have its mounts:\n{node.log(name)}")
    return node


def description(node: Node, taints: Sequence[str]) -> str:
    """The Node object, before its kubelet fills in the rest: kube-proxy needs the addresses, tests may want taints."""
    parsed = [taint.rpartition(":") for taint in taints]
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node.name},
            "spec": {"taints": [_taint(pair, effect) for pair, _colon, effect in parsed]},
            "status": {"addresses": [{"type": "InternalIP", "address": address} for address in node.addresses]},
        }
    )


def _taint(pair: str, effect: str) -> dict[str, str]:
    key, _equals, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}
