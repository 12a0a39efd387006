"""The control plane: etcd and what talks to it, in network and mount namespaces of their own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import addresses
from tests.cluster.certificates import Authority
from tests.cluster.errors import ClusterFailed
from tests.cluster.namespaces import Place, finish

_BRIDGE = "nodes"
_CONTROLLERS = ("kube-controller-manager", "kube-scheduler")


class Control:
    """etcd, API server, controllers and scheduler. The API server may be stopped and started while the others run."""

    def __init__(self, place: Place, kube: Path, folder: Path) -> None:
        self.place = place
        self.authority = Authority(folder / "pki")
        self.kubeconfig = folder / "pki/admin.kubeconfig"
        self._kube = str(kube)
        self._etcd_data = folder / "etcd"
        self._apiserver: subprocess.Popen[bytes] | None = None
        self.processes: list[tuple[str, subprocess.Popen[bytes]]] = []

    @property
    def apiserver_runs(self) -> bool:
        return self._apiserver is not None

    def make_network(self) -> None:
        """The bridge that the nodes hang on."""
        four, six = addresses.CONTROL
        four_bits, six_bits = addresses.LINK_PREFIXES
        self.ip(
            "link set lo up",
            f"link add {_BRIDGE} type bridge",
            f"addr add {four}/{four_bits} dev {_BRIDGE}",
            f"addr add {six}/{six_bits} dev {_BRIDGE} nodad",
            f"link set {_BRIDGE} up",
        )

    def attach(self, number: int, node: Place) -> None:
        """Gives a node its `eth0`, on the bridge."""
        self.ip(
            f"link add to-{node.name} type veth peer name eth0 netns {node.pid}",
            f"link set to-{node.name} master {_BRIDGE} up",
        )

    def ip(self, *commands: str) -> None:
        """Commands of `ip`, as one batch."""
        in_network(self.place, ["ip", "-batch", "-"], "\n".join(commands))

    def make_identities(self) -> None:
        """The authority, and an identity for each program here."""
        authority = self.authority
        authority.make()
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
        hosts = (*addresses.CONTROL, addresses.FIRST_SERVICE, "127.0.0.1", "localhost", *names)
        authority.issue("apiserver", "kube-apiserver", hosts=hosts)
        authority.issue("admin", "admin", "system:masters")
        authority.issue("controllers", "system:kube-controller-manager")
        authority.issue("scheduler", "system:kube-scheduler")
        authority.issue("proxy", "system:kube-proxy")
        authority.kubeconfig("admin")

    def start_etcd(self) -> None:
        argv = [
            "etcd",
            f"--data-dir={self._etcd_data}",
            f"--listen-client-urls={addresses.ETCD}",
            f"--advertise-client-urls={addresses.ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ]
        self._start("etcd", argv)

    def start_apiserver(self) -> None:
        """Starts it, and returns when it is ready. Nothing where it runs."""
        if self._apiserver:
            return
        authority = self.authority
        argv = [
            self._kube,
            "kube-apiserver",
            f"--advertise-address={addresses.CONTROL[0]}",
            f"--secure-port={addresses.API_PORT}",
            f"--etcd-servers={addresses.ETCD}",
            f"--service-cluster-ip-range={addresses.joined(addresses.SERVICES)}",
            f"--client-ca-file={authority.certificate}",
            f"--tls-cert-file={authority.crt('apiserver')}",
            f"--tls-private-key-file={authority.key('apiserver')}",
            f"--kubelet-certificate-authority={authority.certificate}",
            f"--kubelet-client-certificate={authority.crt('admin')}",
            f"--kubelet-client-key={authority.key('admin')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={authority.key('tokens')}",
            f"--service-account-signing-key-file={authority.key('tokens')}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
        ]
        self._apiserver = self._start("kube-apiserver", argv)
        until("kube-apiserver ready", self._is_ready, 60, self._why_not_ready)

    def stop_apiserver(self) -> None:
        """Kills it, as a machine that fails: its connections end, and then none can be made."""
        if self._apiserver:
            self._apiserver.kill()
            self._apiserver.wait()
            self.processes = [(name, process) for name, process in self.processes if process is not self._apiserver]
            self._apiserver = None

    def start_controllers(self) -> None:
        """The controllers, which give the nodes their pod ranges too, and the scheduler."""
        authority = self.authority
        controllers = [
            self._kube,
            "kube-controller-manager",
            f"--kubeconfig={authority.kubeconfig('controllers')}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--root-ca-file={authority.certificate}",
            f"--service-account-private-key-file={authority.key('tokens')}",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={addresses.joined(addresses.PODS)}",
            f"--service-cluster-ip-range={addresses.joined(addresses.SERVICES)}",
            f"--node-cidr-mask-size-ipv4={addresses.POD_MASKS[0]}",
            f"--node-cidr-mask-size-ipv6={addresses.POD_MASKS[1]}",
        ]
        self._start("kube-controller-manager", controllers)
        scheduler = [self._kube, "kube-scheduler", f"--kubeconfig={authority.kubeconfig('scheduler')}"]
        self._start("kube-scheduler", [*scheduler, "--bind-address=127.0.0.1", "--leader-elect=false"])

    def stop_controllers(self) -> None:
        """Controllers and scheduler: what is there stays as it is, whatever is amiss with it."""
        stopped = [process for name, process in self.processes if name in _CONTROLLERS]
        for process in stopped:
            process.kill()
            process.wait()
        self.processes = [each for each in self.processes if each[1] not in stopped]

    def etcdctl(self, *argv: str) -> str:
        """Its output, as JSON where the command has such."""
        command = ["env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={addresses.ETCD}", "--write-out=json", *argv]
        return self.place.run(command).stdout

    def kubectl(
        self, *argv: str, stdin: str = "", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """kubectl as admin, with the host's files."""
        return in_network(self.place, [*self._kubectl, *argv], stdin, check=check, timeout=timeout)

    @property
    def kubectl_command(self) -> list[str]:
        """The command line that runs kubectl as admin from the host."""
        return ["nsenter", f"--net={self.place.netns}", "--", *self._kubectl]

    @property
    def _kubectl(self) -> list[str]:
        return [self._kube, "kubectl", f"--kubeconfig={self.kubeconfig}"]

    def _start(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        process = self.place.start(argv, name)
        self.processes.append((name, process))
        return process

    def _is_ready(self) -> bool:
        return self.kubectl("get", "--raw=/readyz", check=False).returncode == 0

    def _why_not_ready(self) -> str:
        if self._apiserver and self._apiserver.poll() is not None:
            raise ClusterFailed(f"kube-apiserver ended:\n{self.place.log('kube-apiserver')}")
        return self.place.log("kube-apiserver")


def in_network(
    place: Place, argv: Sequence[str], stdin: str = "", *, check: bool = True, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs a program of the host, with the host's files and processes, in the network of a place."""
    command = ["nsenter", f"--net={place.netns}", "--", *argv]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return finish(process, argv, stdin.encode(), check=check, timeout=timeout, place=place.name)


def until(what: str, holds: Callable[[], bool], seconds: float, why_not: Callable[[], str] = lambda: "") -> None:
    """Waits until `holds`; ClusterFailed, with `why_not`, where it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        reason = why_not()
        if time.monotonic() > end:
            raise ClusterFailed(f"not within {seconds} s: {what}\n{reason}")
        time.sleep(0.1)
