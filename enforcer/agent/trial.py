"""Which objects podfence stumbles over, found out without touching what is enforced: all that is known is laid out,
planned and written again and again, some of it in quarantine, for a kernel that is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from compiler.changes import Event
from enforcer.agent.knowledge import Knowledge
from enforcer.agent.quarantine import Kept, Search, key_of
from enforcer.keeping.keep import Keeper
from enforcer.rules.parse import Installed
from enforcer.rules.plan import Actual
from enforcer.rules.steps import Plan
from policy.cidr import Family
from policy.errors import KernelRejected
from policy.model import NetworkPolicy, Pod


class Nowhere:
    """Holds nothing, and takes all that can be said in a kernel's words, but for sets with a `refused` element."""

    lazy = False

    def __init__(self, refused: Iterable[str] = ()) -> None:
        self._refused = tuple(f" {element}\n" for element in refused)

    def read(self, family: Family) -> Actual:
        return Actual(family, Installed({}, {"FORWARD": (), "INPUT": ()}), {})

    def begin(self, steps: Plan) -> Callable[[], None]:
        for step in steps:
            step.text.encode()
            for end in self._refused:
                if end in step.text:
                    raise KernelRejected(f"as the real one does: {end.strip()}")
        return lambda: None


def goes_on(knowledge: Knowledge, families: Iterable[Family], refused: Iterable[str] = ()) -> bool:
    """Whether rules can be made of all that is in `knowledge`, without what the kernel has `refused`."""
    try:
        Keeper(knowledge.view(frozenset()), families, Nowhere(refused)).start(knowledge.events)
    except MemoryError:
        raise
    except Exception:  # whatever it is, it is what is asked for
        return False
    return True


def culprits(
    knowledge: Knowledge,
    families: tuple[Family, ...],
    batch: Iterable[Event],
    given_up: Callable[[], bool],
    refused: frozenset[str] = frozenset(),
) -> list[Kept]:
    """Those without which the rest goes on: sooner of the batch with which it began than of all, and sooner policies
    than pods: a policy is not met where nobody is that it selects. First of all the pods whose address was `refused`,
    which all policies that let them in would have to go without."""
    everything = [each for each in knowledge.heard.everything() if isinstance(each, Pod | NetworkPolicy)]
    lately = {key_of(event) for event in batch}
    groups = [[each for each in everything if key_of(each) in lately], everything]
    policies = [[each for each in group if isinstance(each, NetworkPolicy)] for group in groups]
    addresses = {element.partition(",")[0] for element in refused}
    named = [each for each in everything if isinstance(each, Pod) and addresses & set(map(str, each.addresses))]
    search = Search(knowledge.node, lambda quarantine: goes_on(knowledge.anew(quarantine), families, refused), given_up)
    return search.among(named, policies[0], groups[0], policies[1], groups[1], known=knowledge.quarantine.kept.values())
