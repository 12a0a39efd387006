"""What a node and its agent take, to be compared: after the warm-up, and at the end of the same state."""

from __future__ import annotations

import re
from pathlib import Path

from msgspec import Struct

from tests.soak.cluster import Agents

MEMORY_BOUND = 12.0  # MB that an agent which lives as long as the run may grow by
FILES_BOUND = 6  # a restore program that was killed is begun anew when it is needed


class Taken(Struct, frozen=True):
    """Of one node: MB and file descriptors of its agent, and what its kernel holds of podfence's by name; which
    generation of a set it is does not matter."""

    megabytes: float
    files: int
    threads: int
    chains: tuple[str, ...]
    sets: tuple[str, ...]
    rules: int
    entries: int

    def __str__(self) -> str:
        return (
            f"{self.megabytes:.1f} MB, {self.files} files, {self.threads} threads, {len(self.chains)} chains, "
            f"{self.rules} rules, {len(self.sets)} sets, {self.entries} entries"
        )


def taken(agent: Agents) -> Taken:
    status = Path(f"/proc/{agent.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    lines = [
        (program, line) for program in ("iptables-save", "ip6tables-save") for line in agent.run(program).splitlines()
    ]
    sets = agent.run("ipset", "save").splitlines()
    return Taken(
        int(fields["VmRSS"].split()[0]) / 1024,
        len(list(Path(f"/proc/{agent.pid}/fd").iterdir())),
        int(fields["Threads"]),
        tuple(sorted(f"{program} {line.split()[0]}" for program, line in lines if _ours(line))),
        tuple(sorted(re.sub(r"-g\d$", "", line.split()[1]) for line in sets if line.startswith("create pf-"))),
        sum(line.startswith(("-A PF-", "-A PODFENCE-")) for _, line in lines),
        sum(line.startswith("add pf-") for line in sets),
    )


def grown(before: Taken, after: Taken, same_process: bool) -> list[str]:
    """What is not flat."""
    found = []
    if same_process and after.megabytes > before.megabytes + MEMORY_BOUND:
        found.append(f"memory: {before.megabytes:.1f} MB, then {after.megabytes:.1f}")
    if after.files > before.files + FILES_BOUND:
        found.append(f"file descriptors: {before.files}, then {after.files}")
    if after.threads > before.threads + FILES_BOUND:
        found.append(f"threads: {before.threads}, then {after.threads}")
    for what, was, now in (("chains", before.chains, after.chains), ("sets", before.sets, after.sets)):
        if was != now:
            found.append(f"{what}: more {sorted({*now} - {*was})}, less {sorted({*was} - {*now})}")
    for what, count, then in (("rules", before.rules, after.rules), ("entries", before.entries, after.entries)):
        if count != then:
            found.append(f"{what}: {count}, then {then}")
    return found


def _ours(line: str) -> bool:
    return line.startswith((":PF-", ":PODFENCE-"))
