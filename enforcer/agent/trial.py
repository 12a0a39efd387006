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
from policy.model import NetworkPolicy, Pod


class Nowhere:
    """Holds nothing, and takes everything that can be said in a kernel's words."""

    lazy = False

    def read(self, family: Family) -> Actual:
        return Actual(family, Installed({}, {"FORWARD": (), "INPUT": ()}), {})

    def begin(self, steps: Plan) -> Callable[[], None]:
        for step in steps:
            step.text.encode()
        return lambda: None


def goes_on(knowledge: Knowledge, families: Iterable[Family]) -> bool:
    """Whether rules can be made of all that is in `knowledge`."""
    try:
        Keeper(knowledge.view(frozenset()), families, Nowhere()).start(knowledge.events)
    except MemoryError:
        raise
    except Exception:  # whatever it is, it is what is asked for
        return False
    return True


def culprits(
    knowledge: Knowledge, families: tuple[Family, ...], batch: Iterable[Event], given_up: Callable[[], bool]
) -> list[Kept]:
    """Those without which the rest goes on: sooner of the batch with which it began than of all, and sooner policies
    than pods: a policy is not met where nobody is that it selects."""
    everything = [each for each in knowledge.heard.everything() if isinstance(each, Pod | NetworkPolicy)]
    lately = {key_of(event) for event in batch}
    groups = [[each for each in everything if key_of(each) in lately], everything]
    policies = [[each for each in group if isinstance(each, NetworkPolicy)] for group in groups]
    search = Search(knowledge.node, lambda quarantine: goes_on(knowledge.anew(quarantine), families), given_up)
    return search.among(policies[0], groups[0], policies[1], groups[1], known=knowledge.quarantine.kept.values())
