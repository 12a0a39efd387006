"""The machine that figures were measured on, as far as it can explain them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from msgspec import Struct


class Machine(Struct, frozen=True):
    """`conntrack_buckets` and `conntrack_max` are of the kernel's one table; 0 where it has none."""

    processor: str
    cores: int
    memory_mb: int
    kernel: str
    virtual: str
    python: str
    iptables: str
    ipset: str
    conntrack_buckets: int
    conntrack_max: int


def describe() -> Machine:
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in processors if line.startswith("model name")), "")
    return Machine(
        processor=model or platform.machine(),
        cores=os.cpu_count() or 1,
        memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        kernel=platform.release(),
        virtual="yes" if any("hypervisor" in line for line in processors) else "no",
        python=platform.python_version(),
        iptables=_version("iptables-nft"),
        ipset=_version("ipset"),
        conntrack_buckets=_number("nf_conntrack_buckets"),
        conntrack_max=_number("nf_conntrack_max"),
    )


def _version(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        return ""
    words = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return next((word.strip(",") for word in words if word.lstrip("v")[:1].isdigit()), "")


def _number(name: str) -> int:
    """A sysctl of the kernel's connection tracking, which appears once a namespace uses it."""
    path = Path("/proc/sys/net/netfilter", name)
    return int(path.read_text()) if path.exists() else 0
