"""Programs that others of a node run beside podfence: real ones, in a node's network namespace and a mount namespace of
their own, where /run is empty and nothing of the host's is theirs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from enforcer.kernel.backend import Mode
from lab.cluster import Lab
from tests.agent.node import until

START = 60.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # theirs is the system's Python, not ours
# They run whatever `iptables` is on this system, and some without the environment that they were given. $1 is what all
# iptables commands shall be, $2 the folder that stands in for /etc/docker.
_PLACE = """
mount -t tmpfs tmpfs /run
touch /run/xtables.lock
mount --bind "$XTABLES_LOCKFILE" /run/xtables.lock
now=$(readlink -f "$(command -v iptables)")
[ "$now" = "$1" ] || mount --bind "$1" "$now"
[ ! -d /etc/docker ] || mount --bind "$2" /etc/docker
shift 2
exec "$@"
"""


class Node:
    """A node of a lab, for programs of others. `lock` is the xtables lock that all of them and podfence share."""

    def __init__(self, lab: Lab, name: str, mode: Mode, lock: Path) -> None:
        self.lab = lab
        self.name = name
        self._mode = mode
        lock.touch()
        self.environment = {"PATH": _PATH, "LANG": "C.UTF-8", "XTABLES_LOCKFILE": str(lock)}

    def _command(self, argv: tuple[str, ...], folder: Path) -> list[str]:
        program = shutil.which(f"iptables-{self._mode}", path=_PATH)
        assert program, "tools/setup installs it"
        place = ("sh", "-euc", _PLACE, "sh", str(Path(program).resolve()), str(folder))
        return ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", *place, *argv]

    @contextmanager
    def running(self, folder: Path, *argv: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Ended by SIGTERM; killed where it doesn't end then."""
        log = folder / f"{argv[0]}.log"
        with log.open("ab") as output, self.lab.inside(self.name):
            process = subprocess.Popen(
                self._command(argv, folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment | environment,
            )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(START)
        finally:
            process.kill()
            process.wait()

    def run(self, *argv: str, environment: Mapping[str, str] | None = None) -> str:
        """What a program says that ends by itself; it has to end well."""
        with self.lab.inside(self.name):
            done = subprocess.run(
                argv, env=self.environment | dict(environment or {}), capture_output=True, text=True, timeout=START
            )
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout


class Others:
    """A program of others on a node, from `__enter__` to `__exit__`; what it does in between are its methods."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._stack = ExitStack()

    def begin(self, stack: ExitStack, folder: Path) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        # Sockets have paths of 107 bytes at most, so not below pytest's folder.
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="others-")))
        try:
            self.begin(self._stack, folder)
        except BaseException:
            for log in folder.glob("*.log"):
                print(log.name, log.read_text()[-3000:])
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path={socket}</listen><policy context="default"><allow user="*"/><allow own="*"/>
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy></busconfig>
"""


class Firewalld(Others):
    """All interfaces are trusted: that pods reach one another is left to podfence. `rules` is firewalld's own backend,
    `nftables` or `iptables`."""

    def __init__(self, node: Node, rules: str) -> None:
        super().__init__(node)
        self._rules = rules
        self._bus: dict[str, str] = {}

    def begin(self, stack: ExitStack, folder: Path) -> None:
        socket = folder / "bus"
        self._bus = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"}
        (folder / "bus.conf").write_text(_BUS.format(socket=socket))
        (folder / "firewalld.conf").write_text(f"DefaultZone=trusted\nFirewallBackend={self._rules}\n")
        bus = ("dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork", "--nopidfile")
        stack.enter_context(self.node.running(folder, *bus))
        until(socket.exists, "a bus", START)
        argv = ("firewalld", "--nofork", "--nopid", "--system-config", str(folder), "--log-target", "console")
        stack.enter_context(self.node.running(folder, *argv, **self._bus))
        until(self._is_up, "firewalld", START)

    def _is_up(self) -> bool:
        with self.node.lab.inside(self.node.name):
            argv = ["firewall-cmd", "--state"]
            return subprocess.run(argv, env=self.node.environment | self._bus, capture_output=True).returncode == 0

    def command(self, *argv: str) -> None:
        self.node.run("firewall-cmd", *argv, environment=self._bus)


class Docker(Others):
    """Without a container: networks are what it writes rules for."""

    def begin(self, stack: ExitStack, folder: Path) -> None:
        (folder / "daemon.json").write_text("{}")
        self._socket = f"unix://{folder}/docker.sock"
        paths = ("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid")
        how = ("--config-file", f"{folder}/daemon.json", "--storage-driver", "vfs", "--iptables=true", "--ip6tables")
        v6 = ("--experimental", "--ipv6", "--fixed-cidr-v6", "fd00:d0c::/64")
        process = stack.enter_context(self.node.running(folder, "dockerd", "-H", self._socket, *paths, *how, *v6))
        until(lambda: process.poll() is not None or self._is_up(), "Docker", START)
        assert process.poll() is None, "dockerd ended"

    def _is_up(self) -> bool:
        argv = ["docker", "-H", self._socket, "version"]
        return subprocess.run(argv, env=self.node.environment, capture_output=True).returncode == 0

    def command(self, *argv: str) -> None:
        self.node.run("docker", "-H", self._socket, *argv)


def nft_rules(node: Node) -> str:
    """All nf_tables rules of a node but those of iptables' own tables, as libnftables prints them."""
    code = "import nftables; print(nftables.Nftables().cmd('list ruleset')[1])"
    tables = f"\n{node.run('/usr/bin/python3', '-c', code)}".split("\ntable ")
    return "\n".join(sorted(each for each in tables if "inet firewalld" in each.split("{")[0]))


__all__ = ["Docker", "Firewalld", "Node", "nft_rules"]
