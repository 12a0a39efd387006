"""A running cluster: started, used, and taken away with all that it made.

A `Cluster` in a `with` block lives as long as the block, and never longer than this process: the first process of the
cluster's PID namespace reads from a pipe that only this process can write to, and ends with it. With `stays` it lives
until `down`, from any process.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from tests.cluster import build, images, state
from tests.cluster import node as machine
from tests.cluster.cni import Kind
from tests.cluster.control import Control, until
from tests.cluster.errors import ClusterFailed
from tests.cluster.namespaces import Place, first_child
from tests.cluster.node import Node


class Cluster:
    """Nodes `node-1`, `node-2`, …, Ready inside a `with` block, with pods' addresses of both families; or with none a
    control plane alone."""

    def __init__(
        self,
        name: str = "",
        *,
        nodes: int = 2,
        cni: Kind = "ptp",
        proxy_mode: Literal["iptables", "nftables"] = "iptables",
        iptables: Literal["legacy", "nft"] = "nft",
        taints: Sequence[str] = (),
        stays: bool = False,
    ) -> None:
        self.name = name or f"test-{os.getpid()}"
        self.nodes: dict[str, Node] = {}
        self.started_in = 0.0
        self._count = nodes
        self._cni = cni
        self._proxy_mode = proxy_mode
        self._iptables = iptables
        self._taints = tuple(taints)
        self._stays = stays
        self._keeper: subprocess.Popen[bytes] | None = None
        self._control: Control | None = None
        self._kube = Path()

    @property
    def folder(self) -> Path:
        return state.folder(self.name)

    @property
    def control(self) -> Control:
        if not self._control:
            raise ClusterFailed(f"the cluster {self.name} is not up")
        return self._control

    @property
    def kubeconfig(self) -> Path:
        """Of the admin; it works in the network of every place of the cluster: the control plane's, nodes', pods'."""
        return self.control.kubeconfig

    def start(self) -> None:
        """Makes the cluster; returns when all nodes are Ready. Where that fails, nothing is left."""
        build.kube()
        began = time.monotonic()
        try:
            self._claim()
            self._start_machines()
            self._start_kubernetes()
        except BaseException:
            self.stop()
            raise
        self.started_in = time.monotonic() - began

    def stop(self) -> None:
        """Ends all processes, and removes all that the cluster made. Nothing where it isn't up."""
        keeper, self._keeper = self._keeper, None
        if not keeper:
            return
        # With the first process of a PID namespace the kernel kills all others, and its end waits for theirs: ours
        # must be waited for first.
        keeper.kill()
        if keeper.stdin:
            keeper.stdin.close()
        for _name, process in self._processes():
            process.wait()
        keeper.wait()
        with state.claiming():
            state.remove(self.name)
        self.nodes, self._control = {}, None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def node(self, name: str) -> Node:
        try:
            return self.nodes[name]
        except KeyError:
            raise ClusterFailed(f"no node {name}; there are {', '.join(self.nodes)}") from None

    def kubectl(self, *argv: str, stdin: str = "", timeout: float = 60) -> str:
        """What `kubectl ARGV…` prints, as admin. ClusterFailed, with what it says, where it fails."""
        return self.control.kubectl(*argv, stdin=stdin, timeout=timeout).stdout

    def apply(self, *objects: object) -> None:
        """`kubectl apply` of objects as JSON has them."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, *argv: str) -> dict[str, object]:
        """What `kubectl get ARGV… -o json` prints."""
        got: dict[str, object] = json.loads(self.kubectl("get", *argv, "-o", "json"))
        return got

    def exec(
        self, pod: str, argv: Sequence[str], *, namespace: str = "default", check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in the first container of a pod, through API server and kubelet."""
        command = ("exec", f"--namespace={namespace}", pod, "--", *argv)
        return self.control.kubectl(*command, check=check, timeout=timeout)

    def pod_netns(self, pod: str, namespace: str = "default") -> Path:
        """The network namespace of a running pod: for `nsenter --net=`, with the host's programs and files."""
        read = "jsonpath={.spec.nodeName} {.status.containerStatuses[0].containerID}"
        node, container = self.kubectl("get", "pod", pod, f"--namespace={namespace}", "-o", read).split(" ")
        return self.node(node).container_netns(container.removeprefix("containerd://"))

    def load_image(self, tar: Path, *names: str) -> None:
        """Gives an image to these nodes, or to all. See `Node.load_image`."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self.node(name).load_image(tar), names or self.nodes))

    def stop_apiserver(self) -> None:
        self.control.stop_apiserver()

    def start_apiserver(self) -> None:
        self.control.start_apiserver()

    def compact_history(self) -> int:
        """etcd forgets all revisions before the present one, which is returned, and so does the API server, which keeps
        some itself and is started anew for that, if it runs: a watch from before gets 410."""
        revision = int(json.loads(self.control.etcdctl("get", "--limit=1", "/"))["header"]["revision"])
        runs = self.control.apiserver_runs
        self.stop_apiserver()
        self.control.etcdctl("compact", str(revision))
        if runs:
            self.start_apiserver()
        return revision

    def _processes(self) -> list[tuple[str, subprocess.Popen[bytes]]]:
        of_nodes = [entry for node in self.nodes.values() for entry in node.processes]
        return [*(self._control.processes if self._control else []), *of_nodes]

    def _claim(self) -> None:
        """The name, the folder, and the control plane's namespaces with the process that the cluster lives with."""
        if os.geteuid() != 0:
            raise ClusterFailed("a cluster needs root")
        with state.claiming():
            # Orphans become its children: it leaves no zombies, and does nothing else.
            holds = ["sleep", "infinity"] if self._stays else ["cat"]
            argv = ["unshare", "--mount", "--net", "--mount-proc", "--", "env", "--ignore-signal=CHLD", *holds]
            stdin = subprocess.DEVNULL if self._stays else subprocess.PIPE
            with first_child():
                keeper = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.DEVNULL, start_new_session=True)
            try:
                state.claim(self.name, keeper.pid)
            except BaseException:
                keeper.kill()
                keeper.wait()
                raise
            self._keeper = keeper
        until("the control plane's namespaces", lambda: _holds(keeper.pid, holds[0]), 10)

    def _start_machines(self) -> None:
        """Everything that the API server need not be there for, while it starts."""
        assert self._keeper
        self._kube = build.kube()
        logs = self.folder / "logs"
        logs.mkdir()
        control = self._control = Control(Place("control", self._keeper.pid, logs), self._kube, self.folder)
        control.make_network()
        control.make_identities()
        control.start_etcd()
        with ThreadPoolExecutor(max_workers=1) as pool:
            apiserver = pool.submit(control.start_apiserver)
            tars = images.write(self.folder)
            for number in range(1, self._count + 1):
                node = machine.make(number, control.place, self.folder, self._iptables, logs)
                self.nodes[node.name] = node
                control.attach(number, node)
                node.make_network()
                node.start_containerd(tars)
            apiserver.result()

    def _start_kubernetes(self) -> None:
        control = self.control
        for node in self.nodes.values():
            self.kubectl("create", "-f", "-", stdin=machine.description(node, self._taints))
        control.start_controllers()
        until("pod ranges for the nodes", self._have_ranges, 30, lambda: control.place.log("kube-controller-manager"))
        for node in self.nodes.values():
            self._route(node)
            node.start_kubernetes(self._kube, control.authority, self.name, self._proxy_mode)
        if self.nodes:
            self.kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=60s", timeout=70)
        self.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=30s")
        self._write_commands()

    def _have_ranges(self) -> bool:
        for item in json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]:
            node = self.nodes[item["metadata"]["name"]]
            if "podCIDRs" not in item["spec"]:
                return False
            if not node.pod_cidrs:
                node.configure_pods(self._cni, item["spec"]["podCIDRs"])
        return True

    def _route(self, node: Node) -> None:
        """How the control plane and all other nodes reach the pods of a node."""
        routes = [f"route add {cidr} via {via}" for cidr, via in zip(node.pod_cidrs, node.addresses, strict=True)]
        self.control.ip(*routes)
        for other in self.nodes.values():
            if other is not node:
                other.ip(*routes)

    def _write_commands(self) -> None:
        """For people: `kubectl`, and a shell on each node."""
        commands = {"kubectl": self.control.kubectl_command}
        commands |= {f"on-{node.name}": _inside(node) for node in self.nodes.values()}
        for name, argv in commands.items():
            script = self.folder / name
            script.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
            script.chmod(0o755)


def _holds(pid: int, program: str) -> bool:
    """The process has its namespaces and mounts, and has become the program that holds them."""
    return Path(f"/proc/{pid}/comm").read_text() == f"{program}\n"


def _inside(node: Node) -> list[str]:
    """A command line that runs what follows it on a node."""
    return ["nsenter", "--target", str(node.pid), "--mount", "--net", "--uts", "--pid", "--"]


def _kill(handle: int) -> None:
    """Kills a process, and returns when it is dead."""
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    ended.poll(10_000)


def down(name: str) -> bool:
    """Ends a cluster from any process; False where there is none of that name."""
    with state.claiming():
        pid = state.keeper(name)
        if pid is not None:
            with suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                try:
                    if state.keeper(name) == pid:
                        _kill(handle)
                finally:
                    os.close(handle)
        existed = state.folder(name).exists()
        state.remove(name)
    return existed
