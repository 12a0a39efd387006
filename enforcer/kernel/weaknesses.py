"""Settings of the node that open a way around its rules, each with the command that closes it.

Asked of the network namespace that the thread is in. Nothing is changed: sysctls are the operator's. Each is said, and
keeps nobody from enforcing all else.

A packet with a source route is looked up in the connection table where it comes in, and only then sent on to where its
route says. So in an open flow to its node, which rule 1 lets pass, a pod reaches whom it likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from enforcer.kernel.bridges import tags_pass_by

_NET = Path("/proc/sys/net")
# What `all` says 0 to is off on every interface, whatever that says itself; 0 is the kernel's default.
_SOURCE_ROUTES = {"ipv4": "accept_source_route", "ipv6": "seg6_enabled"}


def weaknesses(bridged: bool) -> tuple[str, ...]:
    """`bridged`: whether pods are ports of a bridge here."""
    tags = tags_pass_by() if bridged else None
    return (*([tags] if tags else []), *source_routes())


def source_routes() -> Iterator[str]:
    for family, name in _SOURCE_ROUTES.items():
        try:
            on = (_NET / family / "conf/all" / name).read_text().strip() != "0"
        except OSError:
            continue  # a kernel without it accepts none
        if on:
            yield (
                f"pods with CAP_NET_RAW get by with source routes in flows to their node; "
                f"set it: sysctl -w net.{family}.conf.all.{name}=0"
            )
