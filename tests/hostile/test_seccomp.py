"""The agent under the profile of `manifests/overlays/seccomp`: it does all its work, and nobody in its place could call
more of the kernel. What is refused is tried without the profile first, where the kernel says something else."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.probe import Probe
from tests.agent.node import Cluster, cluster_in, saved, until
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import OPEN, REJECTED, WorldOf, backends, world
from tests.hostile.test_privileges import granted, under

__all__ = ["world"]
PROFILE = Path(__file__).parents[2] / "manifests/overlays/seccomp/agent.json"
CONFINED = (sys.executable, "-m", "tests.hostile.confine", str(PROFILE))
WEB_TO_API = Probe("shop/web", "shop/api", "TCP", 80)
OTHER_TO_API = Probe("shop/other", "shop/api", "TCP", 80)

# By name and numbers that a call could never do anything with; x86_64.
CALLS = {
    "ptrace": (101, -1),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "pivot_root": (155, 0, 0),
    "chroot": (161, 0),
    "setns": (308, -1, 0),
    "unshare": (272, 1),
    "bpf": (321, -1, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "kexec_load": (246, 0, 0, 0, 0xFFFF),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, -1, 0, 0),
    "delete_module": (176, 0, 0),
    "userfaultfd": (323, 0xFFFF),
    "process_vm_readv": (310, -1, 0, 0, 0, 0, 0xFFFF),
    "keyctl": (250, -1),
    "io_uring_setup": (425, 0, 0),
    "mknod": (133, 0, 0, 0),
    "personality": (135, 0xFFFFFFFF),
    "memfd_create": (319, 0, 0xFFFF),
    "open_by_handle_at": (304, -1, 0, 0),
    "settimeofday": (164, 1, 1),
    "clone into a namespace": (56, 0x10000000 | 0x200, 0, 0, 0, 0),
}


@pytest.fixture
def cluster(world: WorldOf, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(world, tmp_path) as found:
        yield found


@pytest.mark.kernel
@backends
def test_under_its_profile_and_with_its_capabilities_alone_the_agent_does_all_its_work(cluster: Cluster) -> None:
    cluster.apply(API)
    with cluster.agent(under=(*under(granted()), *CONFINED)) as agent:
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        cluster.relabel("web", app="nobody")
        until(lambda: cluster.world.outcomes(WEB_TO_API) == [REJECTED], "changes are followed, and flows end")
        until(lambda: any(line["message"] == "denied" for line in agent.said()), "a denial is told")
        program = cluster.world.backend.program(4, "save").removesuffix("-save")
        assert cluster.world.lab.run("n1", [program, "-F", "PODFENCE-FORWARD"]).returncode == 0
        until(lambda: agent.metric("podfence_drift_repaired_total") == 1, "others' changes are undone")
        assert cluster.world.outcomes(OTHER_TO_API) == [REJECTED]
        assert not [line for line in agent.said() if line.get("level") == "error"]
        before = saved(cluster.world)
    with cluster.agent(under=CONFINED) as agent:
        assert saved(cluster.world) == before and not agent.applied()[1:], "a restart writes nothing"
        argv = [*CONFINED, sys.executable, "-m", "podfence", "node", "status", "-o", "json"]
        argv += ["--backend", cluster.world.backend.mode, "--state-dir", str(cluster.folder / "state")]
        done = cluster.world.lab.run("n1", argv)
        assert done.returncode == 0 and json.loads(done.stdout)["agent"], done.stderr


def said_by(call: Callable[[], int], confined: bool) -> int:
    """The error number of `call`, 0 where it succeeds, in a process of its own."""
    child = os.fork()
    if not child:
        try:
            if confined:
                from tests.hostile.confine import confine

                confine(json.loads(PROFILE.read_text()))
            os._exit(0 if call() >= 0 else ctypes.get_errno())
        finally:
            os._exit(255)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def called(*numbers: int) -> Callable[[], int]:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return lambda: int(library.syscall(*map(ctypes.c_long, numbers)))


@pytest.mark.kernel
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of another machine's calls")
@pytest.mark.parametrize("name", CALLS)
def test_what_it_never_calls_is_refused(name: str) -> None:
    call = called(*CALLS[name])
    assert said_by(call, confined=False) != errno.EPERM, "without the profile the kernel has another answer"
    assert said_by(call, confined=True) == errno.EPERM


def opened(family: int, kind: int) -> Callable[[], int]:
    def call() -> int:
        try:
            return socket.socket(family, kind).fileno()
        except OSError as error:
            ctypes.set_errno(error.errno or 0)
            return -1

    return call


@pytest.mark.kernel
def test_it_may_not_listen_to_frames_though_it_has_the_capability() -> None:
    """CAP_NET_RAW, which legacy iptables needs, would let it."""
    frames = opened(socket.AF_PACKET, socket.SOCK_RAW)
    assert said_by(frames, confined=False) == 0 and said_by(frames, confined=True) == errno.EPERM
    assert said_by(opened(socket.AF_ALG, socket.SOCK_SEQPACKET), confined=True) == errno.EPERM
    assert said_by(opened(socket.AF_INET, socket.SOCK_RAW), confined=True) in (0, errno.EPROTONOSUPPORT)


@pytest.mark.kernel
def test_it_may_watch_the_folder_of_cni_results() -> None:
    """By inotify, which an agent without that folder never calls."""

    def watch() -> int:
        from inotify_simple import INotify, flags

        return int(INotify().add_watch("/tmp", flags.CREATE))

    assert said_by(watch, confined=True) == 0


@pytest.mark.kernel
def test_a_program_of_its_own_may_run_and_be_ended() -> None:
    """As the agent's iptables are."""
    child = subprocess.Popen([*CONFINED, "sh", "-c", "sleep 60 & kill $!; wait; exec sleep 60"])
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) in (-signal.SIGTERM, 128 + signal.SIGTERM)
