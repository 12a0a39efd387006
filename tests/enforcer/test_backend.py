"""Which backend is chosen, and what a failed restore says."""

import pytest

from enforcer.kernel.backend import Mode, choose, failed_line

HINT = ":KUBE-IPTABLES-HINT - [0:0]\n"


@pytest.mark.parametrize(
    ("legacy", "nft", "default", "expected"),
    [
        ("", "", "nft", "nft"),
        ("", "", "legacy", "legacy"),
        (HINT, "\n-A X\n-A Y", "nft", "legacy"),
        ("\n-A X\n-A Y", HINT, "legacy", "nft"),
        ("\n-A X\n-A Y", "\n-A X", "nft", "legacy"),
        ("\n-A X", "\n-A X\n-A Y", "legacy", "nft"),
    ],
)
def test_kubelets_hint_then_most_rules_then_the_hosts_default(
    legacy: str, nft: str, default: Mode, expected: Mode
) -> None:
    assert choose({"legacy": legacy, "nft": nft}, default) == expected


@pytest.mark.parametrize(
    ("stderr", "shown"),
    [
        ("iptables-restore: line 2 failed\n", "iptables-restore: line 2 failed: '-A X -j Y'"),
        ("ipset v7.17: Error in line 1: Syntax error\n", "ipset v7.17: Error in line 1: Syntax error: '*filter'"),
        ("line 9 failed", "line 9 failed"),
        ("", "failed without a word"),
    ],
)
def test_the_line_at_fault_is_shown(stderr: str, shown: str) -> None:
    assert failed_line(stderr, "*filter\n-A X -j Y\nCOMMIT\n") == shown
