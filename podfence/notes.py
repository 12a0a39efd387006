"""What an answer can't know, and what its verdict leaves out: one sentence each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from compiler.basis import row
from compiler.ports import PortSet
from compiler.verdict import End
from enforcer.rules.modes import MODE_LABEL, mode_of
from policy.cidr import Prefix, parse_cidr
from policy.model import Labels

_LINK_LOCAL = parse_cidr("169.254.0.0/16")


def notes_on(src: End, dst: End) -> Iterator[str]:
    """What can't be known of a flow between these ends."""
    if src.pod is None and not src.node and src.address:
        yield "the source is what the pod's node sees: NAT or a load balancer may have rewritten it before (row 31)"
    if dst.pod is None and not dst.node and dst.address:
        if src.pod and dst.address.family == 4 and _LINK_LOCAL.contains(Prefix(4, dst.address.value, 32)):
            yield f"a link-local address is on the pod's own node: {row(28).text} (row 28)"
        else:
            yield "what stands before the destination, beyond the cluster, is not known here"
    for end, role in ((src, "source"), (dst, "destination")):
        if end.pod is not None and end.address is None and not end.pod.stands_in:
            yield f"the {role} has no address yet: it is taken to get one of its own"


def modes(denied: Iterable[str], namespaces: Mapping[str, Labels]) -> Iterator[str]:
    """Where a label keeps what is denied to the pods of `denied` namespaces from being enforced."""
    for namespace in denied:
        mode = mode_of(namespaces.get(namespace, {}), "enforce")
        if mode != "enforce":
            yield f"namespace {namespace} has {MODE_LABEL}={mode}: what is denied to its pods passes nevertheless"


def possible(ports: PortSet, known: PortSet) -> Iterator[str]:
    if more := ports.difference(known):
        yield f"also {more}, if an end gets an address that a rule's block holds"
