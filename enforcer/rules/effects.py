"""What a change of a set's elements does to verdicts, and whether it may be made in place, element by element.

A step widens or narrows by what it does to verdicts, not by being an add or a remove: where a rule allows what is in a
set an add widens, where a rule denies it an add narrows, and a `nomatch` turns either over.

In place is right in three cases, each with its proof:

- Everything widens, or everything narrows. Verdicts go one way, so each flow turns at most once, from old to new.
- All changes concern one address, in sets in which rules of allow-sets look for the far end of a flow. A flow has that
  address at one end at most (a pod's flow to itself is allowed before any set), so only one of its halves looks for it;
  and a half allows what any of its rules allows. Adds first, then removes: in between that half allows what its old
  or its new sets allow. If neither did, it still denies.
- Nothing changes but counters, or how a packet is denied.

Adds first is wrong for more than one address: one pod leaves the set that let its egress pass, another enters the set
that admits it, and a flow that both halves denied in turn would pass in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec.structs import replace

from enforcer.rules.names import is_allow_chain
from enforcer.rules.parse import Foreign
from enforcer.rules.ruleset import Count, Drop, Element, Goto, InSet, Nflog, Reject, Return, Rule, Target
from enforcer.rules.steps import ChangeSet

Role = Literal["far end", "allows", "denies", "neither"]
Effect = Literal["widens", "narrows", "nothing"]


def roles(chains: Mapping[str, Iterable[Rule | Foreign]]) -> dict[str, Role]:
    """What being in a set means, by the rules that look in it. A set with two meanings is none of ours."""
    found: dict[str, Role] = {}
    for chain, rules in chains.items():
        allows: Role = "far end" if is_allow_chain(chain) else "allows"
        known = list(rules)
        settled = denied_from(known)
        for number, rule in enumerate(known):
            if isinstance(rule, Rule):
                role = "neither" if number >= settled else _role(rule.target, allows)
                for match in rule.matches:
                    # A rule that counts, tells, or says how to deny says nothing of what another one decides.
                    if isinstance(match, InSet) and (role != "neither" or match.name not in found):
                        found[match.name] = role
    return found


def _role(target: Target, allows: Role) -> Role:
    if isinstance(target, Return):
        return allows
    return "neither" if isinstance(target, Count | Nflog) else "denies"


def denied_from(rules: Sequence[Rule | Foreign]) -> int:
    """The number of the first rule, from 0, from which on a packet is denied whatever it is, and only how differs."""
    end = next((at for at, rule in enumerate(rules) if stops_all(rule)), -1)
    last = rules[end] if end >= 0 else None
    if not (isinstance(last, Rule) and isinstance(last.target, Drop | Reject)):
        return len(rules)
    place = end + 1
    for rule in reversed(rules[:place]):
        if not (isinstance(rule, Rule) and isinstance(rule.target, Drop | Reject | Nflog | Count)):
            break
        place -= 1
    return place


def stops_all(rule: Rule | Foreign) -> bool:
    """Whether no packet comes to what stands behind it, such as rules that wait to be taken out."""
    return isinstance(rule, Rule) and not rule.matches and isinstance(rule.target, Goto | Return | Drop | Reject)


def effect(role: Role, element: Element, added: bool) -> Effect:
    if role == "neither":
        return "nothing"
    return "widens" if (added != element.nomatch) == (role != "denies") else "narrows"


def in_place(changes: Sequence[ChangeSet], role_of: Mapping[str, Role]) -> tuple[ChangeSet, ...] | None:
    """The changes in an order in which they are safe element by element; None where there is no such order."""
    others = [change for change in changes if role_of[change.name] == "neither"]
    deciding = [change for change in changes if role_of[change.name] != "neither"]
    elements = [
        (change.name, element, added)
        for change in deciding
        for added, group in ((True, change.add), (False, change.remove))
        for element in group
    ]
    effects = {effect(role_of[name], element, added) for name, element, added in elements}
    one_far_end = (
        all(role_of[change.name] == "far end" for change in deciding)
        and not any(element.nomatch for _, element, _ in elements)
        and len({element.prefix for _, element, _ in elements}) == 1
    )
    if (len(effects) > 1 and not one_far_end) or any(map(_turns, deciding)):
        return None
    adds = [ChangeSet(change.name, change.add, ()) for change in deciding if change.add]
    removes = [ChangeSet(change.name, (), change.remove) for change in deciding if change.remove]
    return (*adds, *removes, *others)


def _turns(change: ChangeSet) -> bool:
    """Whether an element only turns its `nomatch` over: to the kernel it is the same element, there already."""
    come, go = ({replace(element, nomatch=False) for element in group} for group in (change.add, change.remove))
    return not come.isdisjoint(go)
