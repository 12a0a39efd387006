"""What stands for many: pods that no policy can tell apart are one class, and a policy's rules are bound once."""

from __future__ import annotations

from msgspec import Struct

from compiler.allowset import AllowSet, BoundRule
from compiler.bind import bind
from compiler.matching import SelectorIndex
from compiler.peers import Member, NamedSource, PeerSet
from policy.model import ContainerPort, Direction, Labels, NetworkPolicy, Pod

# Of so many lists of ports a policy's rules are known at once: pods with others may come for as long as it is there.
_MOST_BOUND = 128
# What policies can see of a pod: the keys of its labels, sorted, then their values, then its ports.
Traits = tuple[object, ...]


class Membership(Struct, frozen=True, gc=False):
    """What one address is a member of: of `plain` sources by itself, of named ones with protocol and port."""

    plain: frozenset[PeerSet] = frozenset()
    named: frozenset[tuple[NamedSource, Member]] = frozenset()


class Carried(Struct, frozen=True, gc=False):
    """What pods of a class make their addresses members of: `always`, and of named sources with the numbers of the
    ports of that name, by a term or only where a block of the source holds the address."""

    always: Membership
    by_term: tuple[tuple[NamedSource, tuple[int, ...]], ...] = ()
    by_block: tuple[tuple[NamedSource, tuple[int, ...]], ...] = ()


NO_MEMBER = Membership()


def traits_of(pod: Pod) -> Traits:
    keys = sorted(pod.labels)
    return (*keys, *map(pod.labels.get, keys), pod.ports)


class Scope:
    """The live sources with a term in one namespaceSelector, under the selectors of their pods."""

    __slots__ = ("named", "plain")

    def __init__(self) -> None:
        self.plain = SelectorIndex[PeerSet]()
        self.named = SelectorIndex[NamedSource]()

    def __bool__(self) -> bool:
        return bool(self.plain or self.named)


class PolicyEntry:
    """One policy as it is at present; what takes its place is another entry. Its rules are bound once for many pods."""

    __slots__ = ("_bound", "looks_at_ports", "policy")

    def __init__(self, policy: NetworkPolicy) -> None:
        self.policy = policy
        # Only a named port of an ingress rule looks at the subject's ports.
        self.looks_at_ports = any(isinstance(p.port, str) for rule in policy.rules("ingress") for p in rule.ports)
        self._bound: dict[tuple[Direction, tuple[ContainerPort, ...]], tuple[BoundRule, ...]] = {}

    def bound(self, direction: Direction, ports: tuple[ContainerPort, ...]) -> tuple[BoundRule, ...]:
        key = (direction, ports if self.looks_at_ports and direction == "ingress" else ())
        found = self._bound.get(key)
        if found is None:
            if len(self._bound) >= _MOST_BOUND:
                self._bound.clear()
            found = self._bound[key] = bind(self.policy, *key)
        return found


class PodClass:
    """The selectable pods of one namespace with equal labels and equal ports, by key. It goes when its last pod does.

    `carried` is what the live sources found for it, None before they looked; `policies` are those that select it, as of
    their version, and `allows` what came of them for those who asked since."""

    __slots__ = (
        "allows",
        "carried",
        "labels",
        "pods",
        "policies",
        "policies_version",
        "ports",
        "space",
        "traits",
    )

    def __init__(self, space: Space, traits: Traits, pod: Pod) -> None:
        self.space = space
        self.traits = traits
        self.labels: Labels = pod.labels
        self.ports: tuple[ContainerPort, ...] = pod.ports
        self.pods: dict[str, Pod] = {}
        self.carried: Carried | None = None
        self.policies: tuple[PolicyEntry, ...] = ()
        self.policies_version = -1
        self.allows: dict[Direction, AllowSet] = {}


class Space:
    """A namespace that is declared or has selectable pods, with its classes by their traits. `scopes` is what the live
    sources found for it, None before they looked."""

    __slots__ = ("classes", "labels", "name", "scopes")

    def __init__(self, name: str, labels: Labels) -> None:
        self.name = name
        self.labels = labels
        self.classes: dict[Traits, PodClass] = {}
        self.scopes: tuple[Scope, ...] | None = None
