"""Named network namespaces: made, entered, run in, deleted.

They are named as iproute2 names them (a bind mount in /run/netns), so `ip netns exec` and nsenter find them. Entering
is per thread: a thread hops into a namespace, makes a socket or starts a process that belongs there, and hops back.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shlex
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from policy.errors import HostRefused

FOLDER = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH = 2
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21
_SIOCETHTOOL, _ETHTOOL_GLINK = 0x8946, 0x0A
_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount")
_EMPTY_RUN = "mount -t tmpfs tmpfs /run"
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _bind(source: str, target: str, flags: int) -> None:
    _checked(_libc.mount(source.encode(), target.encode(), b"none", flags, None), f"mount {target}")


def _own_fd() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _hop(fd: int) -> None:
    _checked(_libc.setns(fd, _CLONE_NEWNET), "setns")


@contextmanager
def _returning() -> Iterator[None]:
    """Whatever namespace the thread hops to, it ends in the one that it came from."""
    own = _own_fd()
    try:
        yield
    finally:
        _hop(own)
        os.close(own)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """The current thread is in namespace `name`. Sockets made and processes started meanwhile stay there."""
    fd = os.open(FOLDER / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _returning():
            _hop(fd)
            yield
    finally:
        os.close(fd)


def create(names: Sequence[str]) -> None:
    """Makes namespaces that are nothing but a downed loopback device. HostRefused where a name is taken."""
    _share_folder()
    with _returning():
        for name in names:
            path = FOLDER / name
            try:
                path.touch(mode=0o444, exist_ok=False)
            except FileExistsError:
                raise HostRefused(f"there is a network namespace {name} already") from None
            _checked(_libc.unshare(_CLONE_NEWNET), "unshare")
            _bind("/proc/thread-self/ns/net", str(path), _MS_BIND)


def _share_folder() -> None:
    """As `ip netns add` does it: without this, one that comes later would hide our mounts under its own."""
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    try:
        _bind("", str(FOLDER), _MS_SHARED | _MS_REC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        _bind(str(FOLDER), str(FOLDER), _MS_BIND | _MS_REC)
        _bind("", str(FOLDER), _MS_SHARED | _MS_REC)


def delete(names: Sequence[str]) -> None:
    """Takes names away; those that are gone already are no error. A namespace ends with its last socket or process."""
    for name in names:
        path = FOLDER / name
        _libc.umount2(str(path).encode(), _MNT_DETACH)
        with suppress(FileNotFoundError):
            path.unlink()


def run_in(
    name: str, argv: Sequence[str], stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program in namespace `name` to its end. `env` is added to the environment. HostRefused where there is no
    such program; its exit code is the caller's to judge."""
    # Where the tools of a node are is not on every user's path.
    whole = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", **(env or {})}
    with inside(name):
        try:
            return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, env=whole)
        except FileNotFoundError:
            raise HostRefused(f"{argv[0]} is not installed on this host") from None


def set_sysctl(name: str, value: str, optional: bool = False) -> None:
    """Sets `net.…` of the namespace that the thread is in. An `optional` one may be unknown to the kernel."""
    try:
        Path("/proc/sys", *name.split(".")).write_text(value)
    except FileNotFoundError:
        if not optional:
            raise HostRefused(f"this kernel has no sysctl {name}, which a lab needs") from None
    except OSError as error:
        raise HostRefused(f"sysctl {name} can't be set here: {error.strerror}") from None


def settle_link(device: str) -> bool:
    """Whether a device of the namespace that the thread is in has a carrier. The kernel tells a device of its peer's
    coming up later, by a worker that a busy machine delays for seconds; till then it loses what it should send. To be
    asked for the carrier makes it do so at once (ethtool_op_get_link)."""
    answer = ctypes.create_string_buffer(struct.pack("=II", _ETHTOOL_GLINK, 0))
    request = struct.pack("16sP", device.encode(), ctypes.addressof(answer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, request)
    return bool(struct.unpack("=II", answer.raw[:8])[1])


def privileged() -> bool:
    """Whether this process may make namespaces, name them and wire them, by itself."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.split("CapEff:")[1].split()[0], 16)
    wanted = 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN
    return capabilities & wanted == wanted and os.access(FOLDER.parent, os.W_OK)


def rootless(argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` as root of a user namespace of its own, with an empty /run for names and
    locks. Everything that it makes ends with it. HostRefused where the kernel forbids user namespaces."""
    _try_rootless()
    return [*_UNSHARE, "sh", "-c", f'{_EMPTY_RUN} && exec "$@"', "sh", *argv]


def rootless_shell() -> str:
    """What a person pastes to get a shell in such a user namespace; labs made there end with it. HostRefused where
    the kernel forbids user namespaces."""
    _try_rootless()
    return shlex.join([*_UNSHARE, "sh", "-c", f'{_EMPTY_RUN} && exec "${{SHELL:-sh}}"'])


def _try_rootless() -> None:
    try:
        trial = subprocess.run([*_UNSHARE, *_EMPTY_RUN.split()], capture_output=True, check=False)
    except FileNotFoundError:
        raise HostRefused("unshare is not installed on this host (package util-linux)") from None
    if trial.returncode != 0:
        raise HostRefused("a lab needs root here: the kernel refuses user namespaces to this user")
