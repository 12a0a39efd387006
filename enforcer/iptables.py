"""The filter table in the kernel: read with iptables-save, changed by iptables-restore, one transaction at a time."""

from __future__ import annotations

from enforcer.backend import LOCK_WAIT, Backend, checked, feed
from enforcer.parse import Installed, parse_tables
from policy.cidr import Family


def read(backend: Backend, family: Family) -> Installed:
    """What is installed of ours. HostRefused where the table can't be read."""
    return parse_tables(checked([backend.program(family, "save"), "-c", "-t", "filter"]))


def restore(backend: Backend, family: Family, text: str) -> None:
    """One transaction, atomic for packets. KernelRejected where the kernel refuses: then nothing has changed."""
    argv = [backend.program(family, "restore"), "--noflush", "--wait", str(LOCK_WAIT)]
    feed(argv, text, f"filter table, IPv{family}")
