"""Which iptables a host uses, and how its programs are run.

The legacy and the nft backend are two tables that do not see each other; rules must go where the others' are. As
kubelet and kube-proxy do: where kubelet left its hint chain, else where there are more rules, else the host's default.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

from msgspec import Struct

from enforcer.rules.names import CHAIN_PREFIXES
from policy.cidr import Family
from policy.errors import HostRefused, KernelRejected

Mode = Literal["legacy", "nft"]
MODES: tuple[Mode, Mode] = ("nft", "legacy")
_HINTS = (":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY ")
LOCK_WAIT = 30
# Seconds before each further try where another writer was faster: half a second in all.
CONFLICT_WAITS = tuple(0.002 * 2**n for n in range(8))


class Backend(Struct, frozen=True):
    """One of the two iptables backends. `families` are those that the host's kernel has."""

    mode: Mode
    families: tuple[Family, ...]

    def program(self, family: Family, verb: Literal["save", "restore"]) -> str:
        return f"{'iptables' if family == 4 else 'ip6tables'}-{self.mode}-{verb}"


def detect(requested: Mode | Literal["auto"] = "auto") -> Backend:
    """The backend to use here. HostRefused, in one line, where a program or a permission is missing, or where rules of
    ours stand in the other backend: two half enforcers are worse than none."""
    families: tuple[Family, ...] = (4, 6) if Path("/proc/net/if_inet6").exists() else (4,)
    present = [mode for mode in MODES if shutil.which(f"iptables-{mode}-restore")]
    if not present or (requested != "auto" and requested not in present):
        wanted = "iptables" if requested == "auto" else f"iptables-{requested}"
        raise HostRefused(f"{wanted} is not installed: apt-get install iptables")
    saved = {mode: _saved(Backend(mode, families)) for mode in present}
    mode = requested if requested != "auto" else choose(saved, _default_mode(present))
    strangers = [m for m in present if m != mode and any(f":{p}" in saved[m] for p in CHAIN_PREFIXES)]
    if strangers:
        raise HostRefused(
            f"podfence's chains are in the {strangers[0]} backend, {mode} was chosen: "
            f"remove them with 'podfence node cleanup --backend {strangers[0]}'"
        )
    return Backend(mode, families)


def choose(saved: dict[Mode, str], default: Mode) -> Mode:
    """The mode by what `iptables-save` prints in each: kubelet's hint, else most rules, else the host's default."""
    for mode, text in saved.items():
        if any(hint in text for hint in _HINTS):
            return mode
    rules = {mode: text.count("\n-A ") for mode, text in saved.items()}
    if len(set(rules.values())) == 1:
        return default
    return max(rules, key=lambda mode: rules[mode])


def _default_mode(present: Sequence[Mode]) -> Mode:
    version = run(["iptables", "--version"]).stdout if shutil.which("iptables") else ""
    default: Mode = "nft" if "nf_tables" in version else "legacy"
    return default if default in present else present[0]


def _saved(backend: Backend) -> str:
    return "".join(checked([backend.program(family, "save")]) for family in backend.families)


def checked(argv: Sequence[str]) -> str:
    """What a program prints; HostRefused with its own words where it fails."""
    done = run(argv)
    if done.returncode:
        raise HostRefused(f"{argv[0]}: {_first_line(done.stderr)}{_advice(done.stderr)}")
    return done.stdout


def _advice(stderr: str) -> str:
    if "ermission denied" in stderr or "not permitted" in stderr or "Can't open socket to ipset" in stderr:
        return " (run it as root, or with CAP_NET_ADMIN and CAP_NET_RAW)"
    return ""


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "failed without a word")


def run(argv: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a program with a list of arguments and text on its standard input; HostRefused where it does not exist."""
    try:
        # Others' comments may be any bytes; they must not keep us from reading our own rules.
        return subprocess.run(
            argv, input=stdin, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False
        )
    except FileNotFoundError:
        raise HostRefused(f"{argv[0]} is not installed") from None


def feed(argv: Sequence[str], text: str, what: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """Gives `text` to a restore program, again where another writer was faster. KernelRejected, with the line at fault,
    where it is not taken; what was enforced stays, since each restore is whole or nothing."""
    done = run(argv, text)
    for wait in CONFLICT_WAITS:
        if not done.returncode or not overtaken(done.stderr, text):
            break
        sleep(wait)
        done = run(argv, text)
    if done.returncode:
        raise refusal(what, argv[0], done.stderr, text)


def refusal(what: str, program: str, stderr: str, text: str, before: int = 0) -> KernelRejected:
    return KernelRejected(f"{what}: {program}: {failed_line(stderr, text, before)}{_advice(stderr)}")


def overtaken(stderr: str, text: str, before: int = 0) -> bool:
    """Whether a restore may have failed only because somebody changed the table meanwhile. iptables-legacy-restore says
    no more than that COMMIT failed; nft's tries again by itself. Nothing is gained by asking for the lock again."""
    return line_at_fault(stderr, text, before) == "COMMIT" and "xtables lock" not in stderr


def failed_line(stderr: str, text: str, before: int = 0) -> str:
    """The reason that a restore program gave, and the line of `text` that it named."""
    reason = " ".join(line.strip() for line in stderr.splitlines() if line.strip())
    line = line_at_fault(stderr, text, before)
    return f"{reason}: {line!r}" if line else reason or "failed without a word"


def line_at_fault(stderr: str, text: str, before: int = 0) -> str:
    """The line of `text` that a restore program named; "" where it named none. It had read `before` lines of other
    texts, and counts on."""
    lines = text.splitlines()
    for word, following in pairwise(stderr.replace(":", " ").split()):
        if word == "line" and following.isdigit() and 0 < int(following) - before <= len(lines):
            return lines[int(following) - before - 1]
    return ""
