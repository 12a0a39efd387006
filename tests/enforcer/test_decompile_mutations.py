"""No meaningful edit of what is installed is missed, and no other one is reported: each of many random edits is judged
by `verify` and by trying every packet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest

from enforcer.readback.simulate import Simulator
from enforcer.readback.verify import verify
from enforcer.readback.why import installed_walk
from enforcer.rules.names import is_own_chain
from enforcer.rules.ruleset import (
    Bridged,
    Drop,
    DstPorts,
    Element,
    Goto,
    InInterface,
    InSet,
    IpSet,
    Jump,
    Match,
    OutInterface,
    PortIn,
    PortOut,
    Proto,
    Return,
    Rule,
    RuleSet,
    State,
)
from tests.enforcer.fake import FakeDataplane
from tests.enforcer.small import differing, installed, small_cluster, view

Edit = Callable[[FakeDataplane, Random], bool]
EDITS: dict[str, Edit] = {}


def edit(function: Edit) -> Edit:
    EDITS[function.__name__] = function
    return function


def a_chain(dataplane: FakeDataplane, rng: Random, least: int = 1) -> str:
    return rng.choice(sorted(name for name, rules in dataplane.chains.items() if len(rules) >= least))


def change_rule(dataplane: FakeDataplane, rng: Random, new: Callable[[Rule], Rule | None]) -> bool:
    """Changes one rule that `new` has something for."""
    places = [(name, at) for name, rules in dataplane.chains.items() for at, rule in enumerate(rules) if new(rule)]
    if not places:
        return False
    name, at = rng.choice(sorted(places))
    rules = list(dataplane.chains[name])
    changed = new(rules[at])
    assert changed
    rules[at] = changed
    dataplane.chains[name] = tuple(rules)
    return True


def change_match(dataplane: FakeDataplane, rng: Random, new: Callable[[Match], Match | None]) -> bool:
    def changed(rule: Rule) -> Rule | None:
        matches = tuple(new(match) or match for match in rule.matches)
        return Rule(matches, rule.target) if matches != rule.matches else None

    return change_rule(dataplane, rng, changed)


@edit
def drop_a_rule(dataplane: FakeDataplane, rng: Random) -> bool:
    name = a_chain(dataplane, rng)
    at = rng.randrange(len(dataplane.chains[name]))
    dataplane.chains[name] = dataplane.chains[name][:at] + dataplane.chains[name][at + 1 :]
    return True


@edit
def double_a_rule(dataplane: FakeDataplane, rng: Random) -> bool:
    name = a_chain(dataplane, rng)
    at = rng.randrange(len(dataplane.chains[name]))
    dataplane.chains[name] = dataplane.chains[name][: at + 1] + dataplane.chains[name][at:]
    return True


@edit
def swap_rules(dataplane: FakeDataplane, rng: Random) -> bool:
    name = a_chain(dataplane, rng, least=2)
    rules = list(dataplane.chains[name])
    at = rng.randrange(len(rules) - 1)
    rules[at : at + 2] = rules[at + 1], rules[at]
    dataplane.chains[name] = tuple(rules)
    return True


@edit
def flush_a_chain(dataplane: FakeDataplane, rng: Random) -> bool:
    dataplane.chains[a_chain(dataplane, rng)] = ()
    return True


@edit
def flip_an_element(dataplane: FakeDataplane, rng: Random) -> bool:
    """Takes an element out, or puts one of another set in."""
    filled = sorted(name for name, ipset in dataplane.sets.items() if ipset.elements)
    known = dataplane.sets[rng.choice(filled)]
    element = rng.choice(sorted(known.elements))
    others = [ipset for _, ipset in sorted(dataplane.sets.items()) if ipset.type == known.type and ipset is not known]
    target = rng.choice([known, *others])
    dataplane.sets[target.name] = IpSet(target.name, target.type, target.elements ^ {element}, target.counters)
    return True


@edit
def turn_an_element_over(dataplane: FakeDataplane, rng: Random) -> bool:
    networks = [ipset for ipset in dataplane.sets.values() if ipset.elements and ipset.type.startswith("hash:net")]
    if not networks:
        return False
    known = rng.choice(networks)
    old = rng.choice(sorted(known.elements))
    new = Element(old.prefix, old.protocol, old.port, old.interface, not old.nomatch)
    dataplane.sets[known.name] = IpSet(known.name, known.type, known.elements - {old} | {new})
    return True


@edit
def change_a_port(dataplane: FakeDataplane, rng: Random) -> bool:
    return change_match(dataplane, rng, lambda m: DstPorts(((79, 80),)) if isinstance(m, DstPorts) else None)


@edit
def change_a_protocol(dataplane: FakeDataplane, rng: Random) -> bool:
    return change_match(dataplane, rng, lambda m: Proto("sctp") if m == Proto("udp") else None)


@edit
def change_an_interface(dataplane: FakeDataplane, rng: Random) -> bool:
    kind = rng.choice((InInterface, OutInterface))
    return change_match(dataplane, rng, lambda m: kind("veth1") if isinstance(m, kind) and m.name != "veth1" else None)


@edit
def change_a_bridge_port(dataplane: FakeDataplane, rng: Random) -> bool:
    kind = rng.choice((PortIn, PortOut))
    return change_match(dataplane, rng, lambda m: kind("veth1") if isinstance(m, kind) and m.name != "veth1" else None)


@edit
def turn_routed_and_bridged(dataplane: FakeDataplane, rng: Random) -> bool:
    return change_match(dataplane, rng, lambda m: Bridged(not m.inverted) if isinstance(m, Bridged) else None)


@edit
def ask_for_other_states(dataplane: FakeDataplane, rng: Random) -> bool:
    states = rng.choice((("NEW",), ("ESTABLISHED", "RELATED"), ("INVALID",)))
    return change_match(dataplane, rng, lambda m: State(states) if isinstance(m, State) else None)  # type: ignore[arg-type]


@edit
def forget_a_match(dataplane: FakeDataplane, rng: Random) -> bool:
    def shorter(rule: Rule) -> Rule | None:
        # Ports without their protocol are nothing that iptables takes.
        at = [n for n, match in enumerate(rule.matches) if not isinstance(match, Proto)]
        return Rule(rule.matches[: at[-1]] + rule.matches[at[-1] + 1 :], rule.target) if at else None

    return change_rule(dataplane, rng, shorter)


@edit
def look_in_another_set(dataplane: FakeDataplane, rng: Random) -> bool:
    types = {name: ipset.type for name, ipset in dataplane.sets.items()}

    def other(match: Match) -> Match | None:
        if not isinstance(match, InSet):
            return None
        same = sorted(name for name in types if types[name] == types[match.name] and name != match.name)
        return InSet(same[0], match.fields) if same else None

    return change_match(dataplane, rng, other)


@edit
def return_and_drop(dataplane: FakeDataplane, rng: Random) -> bool:
    turned = {Return(): Drop(), Drop(): Return()}
    return change_rule(dataplane, rng, lambda r: Rule(r.matches, turned[r.target]) if r.target in turned else None)


@edit
def lead_elsewhere(dataplane: FakeDataplane, rng: Random) -> bool:
    kind = rng.choice((Jump, Goto))
    # Chains without targets of their own, so that no loop is made.
    leads = {name: any(isinstance(r.target, Jump | Goto) for r in rules) for name, rules in dataplane.chains.items()}
    end = rng.choice(sorted(name for name in leads if not leads[name]))
    return change_rule(
        dataplane, rng, lambda r: Rule(r.matches, kind(end)) if isinstance(r.target, Jump | Goto) else None
    )


@edit
def jump_again(dataplane: FakeDataplane, rng: Random) -> bool:
    """A hook led to twice, or a chain of ours hooked that should not be."""
    hook = rng.choice(("FORWARD", "INPUT"))
    dataplane.builtin[hook] = (*dataplane.builtin[hook], rng.choice(sorted(dataplane.chains)))
    return True


def ruleset(dataplane: FakeDataplane) -> RuleSet:
    """With every jump of a built-in chain, as one chain for each hook."""
    chains = dict(dataplane.chains)
    hooks = {}
    for hook, targets in dataplane.builtin.items():
        assert all(map(is_own_chain, targets))
        chains[f"all of {hook}"] = tuple(Rule((), Jump(target)) for target in targets)
        hooks[hook] = f"all of {hook}"
    return RuleSet(4, hooks, chains, dict(dataplane.sets))


HARMLESS = {"double_a_rule"}
TRIED_WHOLE = 2


@pytest.mark.parametrize("name", EDITS)
def test_verify_finds_an_edit_if_and_only_if_a_packet_does(name: str) -> None:
    counts: Counter[bool] = Counter()
    for seed in range(80):
        rng = Random(f"{name} {seed}")
        compiled, node = small_cluster(rng), view(rng)
        dataplane = installed(compiled, node)
        before = ruleset(dataplane)
        # A node that is off has nothing to edit.
        if not dataplane.chains or not EDITS[name](dataplane, rng):
            continue
        after = ruleset(dataplane)
        found = verify(dataplane.read(), compiled, node)
        counts[found is not None] += 1
        if found:
            assert not found.unknown
            outcome, _ = installed_walk(dataplane.read(), found.hook, found.packet)
            assert (outcome == "accept") != (found.wanted == "accept")
            wanted, answer = (Simulator(r).walk(found.hook, found.packet).outcome for r in (before, after))
            assert (wanted == "accept") == (found.wanted == "accept") != (answer == "accept"), seed
        elif counts[False] <= TRIED_WHOLE:
            assert differing(before, after) is None, seed
    assert counts[True] >= 5 or name in HARMLESS, counts
