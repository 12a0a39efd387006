"""Names of chains and sets. Nothing without these prefixes is ever changed.

`PODFENCE-*` are hooks and dispatch, `PF-*` pods and allow-sets, `pf-*` sets. iptables takes 28 characters, ipset 31.
What names an identity is hashed over parts that cannot run into each other, so that `a` + `bc` and `ab` + `c` differ.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from policy.cidr import BITS, Family, Prefix
from policy.model import Direction

CHAIN_PREFIXES = ("PODFENCE-", "PF-")
SET_PREFIX = "pf-"
_ALLOW = "PF-a-"

FORWARD = "PODFENCE-FORWARD"
INPUT = "PODFENCE-INPUT"
SPOOFED = "PODFENCE-SPOOFED"
UNKNOWN = "PODFENCE-UNKNOWN"
REVOKED = "PODFENCE-REVOKED"
GROUPS = "PODFENCE-GROUPS"
NODE = "PODFENCE-NODE"
DISPATCH: dict[Direction, str] = {"ingress": "PODFENCE-INGRESS", "egress": "PODFENCE-EGRESS"}
OTHERS: dict[Direction, str] = {"ingress": "PODFENCE-IN-OTHER", "egress": "PODFENCE-OUT-OTHER"}
DENY: dict[Direction, str] = {"ingress": "PODFENCE-DENY-IN", "egress": "PODFENCE-DENY-OUT"}


def is_own_chain(name: str) -> bool:
    return name.startswith(CHAIN_PREFIXES)


def is_own_set(name: str) -> bool:
    return name.startswith(SET_PREFIX)


def digest(*parts: str, size: int = 8) -> str:
    """A hash of the parts as a sequence: each is preceded by its length."""
    state = blake2b(digest_size=size)
    for part in parts:
        data = part.encode()
        state.update(len(data).to_bytes(4, "big") + data)
    return state.hexdigest()


def pod_chain(direction: Direction, namespace: str, name: str, uid: str) -> str:
    return f"PF-{'i' if direction == 'ingress' else 'e'}-{digest(namespace, name, uid)}"


def allow_chain(content: str) -> str:
    return f"{_ALLOW}{digest(content)}"


def is_allow_chain(name: str) -> bool:
    return name.startswith(_ALLOW)


def branch_chain(direction: Direction, prefix: Prefix, root: str = "") -> str:
    """The dispatch chain for the addresses of `prefix`. IPv4 shows its digits; IPv6 would not fit. The tree of NODE has
    names of its own."""
    digits = f"{prefix.network:0{BITS[prefix.family] // 4}x}"[: (prefix.length + 3) // 4]
    shown = digits if len(digits) <= 8 else digest(digits, size=6)
    tree = "N" if root == NODE else "I" if direction == "ingress" else "E"
    return f"PODFENCE-{tree}-{shown}-{prefix.length}"


def set_name(family: Family, kind: str, content: str = "") -> str:
    """The identity of a set: its kind and, where there are several, what it stands for. A generation follows."""
    return f"{SET_PREFIX}{family}-{kind}" + (f"-{digest(content)}" if content else "")


def generation_name(identity: str, generation: int) -> str:
    return f"{identity}-g{generation}"


@lru_cache(maxsize=1 << 14)
def split_generation(name: str) -> tuple[str, int]:
    """Identity and generation of a set's name; generation 0 where it has none."""
    identity, dash, number = name.rpartition("-g")
    return (identity, int(number)) if dash and number.isascii() and number.isdigit() else (name, 0)
