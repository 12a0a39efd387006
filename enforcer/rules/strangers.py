"""Rules of others that write the bit of the connection mark that podfence relies on. Pure: iptables-save's text in.

Such a rule lets flows go on that have ended, or ends others. Programs that load nftables rules of their own are not
seen here; what they do to a flow is found at the next change, which compares all bits with what they should be.
"""

from __future__ import annotations

import re

# iptables-save has two ways to say all that CONNMARK can write: a value under a mask, and a copy under two.
_WRITES = re.compile(r" -j CONNMARK --(?:set-xmark|save-mark --nfmask) (0x[0-9a-f]+)(?:/| --ctmask )(0x[0-9a-f]+)")


def mark_writers(saved: str, mark: int) -> tuple[str, ...]:
    """The rules, with their chains, that may change the bit `mark`."""
    return tuple(
        line
        for line in saved.splitlines()
        if (found := _WRITES.search(line)) and any(int(mask, 16) & mark for mask in found.groups())
    )
