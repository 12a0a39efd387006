"""The few words that random clusters are made of."""

from __future__ import annotations

# Names that run together: `a` + `b-p` and `a-b` + `p` must not be taken for one another.
NAMESPACES = ("default", "a", "a-b")
NAMES = ("p", "b-p", "q", "b-q")
KEYS = ("app", "tier", "ns")
VALUES = ("x", "y", "")
PORT_NAMES = ("http", "web", "dns")
NUMBERS = (1, 53, 80, 81, 8080, 8081, 65535)
PROTOCOLS = ("TCP", "UDP", "SCTP")
OUTSIDE = ("203.0.113.7", "198.51.100.1", "10.1.255.9", "2001:db8:ffff::7", "fd00:ffff::9")
