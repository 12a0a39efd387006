"""Which objects can matter to the ends that a command is asked about, by their names alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from policy.cidr import parse_address, parse_cidr

# How kubectl and people call kinds, by what they are called here.
KINDS = {
    **dict.fromkeys(("pod", "pods", "po"), "pod"),
    **dict.fromkeys(("deploy", "deployment", "deployments"), "deploy"),
    **dict.fromkeys(("sts", "statefulset", "statefulsets"), "sts"),
    **dict.fromkeys(("ds", "daemonset", "daemonsets"), "ds"),
    **dict.fromkeys(("rs", "replicaset", "replicasets"), "rs"),
    **dict.fromkeys(("job", "jobs"), "job"),
    **dict.fromkeys(("cronjob", "cronjobs", "cj"), "cronjob"),
    **dict.fromkeys(("podtemplate", "podtemplates"), "podtemplate"),
    **dict.fromkeys(("node", "nodes", "no"), "node"),
    **dict.fromkeys(("svc", "service", "services"), "svc"),
}


class Scope(Struct, frozen=True):
    """What the names of the ends call for. `everywhere`: all pods, since a block may hold any of them."""

    namespaces: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    everywhere: bool = False


def scope_of(names: Sequence[str], namespace: str) -> Scope:
    """The namespaces that names can mean, in every reading; those of other namespaces can't matter: a policy selects
    subjects of its own, and a peer is one of the two ends."""
    namespaces: dict[str, None] = {}
    addresses: list[str] = []
    everywhere = False
    for name in names:
        if name == "internet" or _is(parse_cidr, name):
            everywhere = True
        elif _is(parse_address, name):
            addresses.append(name)
        else:
            first, slash, rest = name.partition("/")
            if KINDS.get(first) == "node":
                everywhere = True  # a node's ports lead to the Services of any namespace
            if slash:
                namespaces[first] = None
            if not slash or (first in KINDS and "/" not in rest):
                namespaces[namespace] = None
    return Scope(tuple(namespaces), tuple(addresses), everywhere)


def _is(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


EVERYTHING = Scope((), (), True)
