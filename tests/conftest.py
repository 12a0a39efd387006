"""Rules for all tests: what `kernel` tests need, and when they may be skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

import hypothesis
import pytest

# How long an example takes is the machine's affair: a test that must be quick says so itself, and of CPU time.
hypothesis.settings.register_profile("podfence", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("podfence")

TOOLS = ("ip", "iptables-legacy", "iptables-nft", "ebtables", "ipset", "conntrack")


@cache
def no_packets_because() -> str:
    """Why this process cannot have real packets; "" where it can."""
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run(["unshare", "-nm", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kernel") and (reason := no_packets_because()):
        if os.environ.get("CI") and os.geteuid() == 0:
            pytest.fail(f"root in CI must have real packets: {reason}")
        pytest.skip(f"no real packets here: {reason}")
