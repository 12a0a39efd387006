"""What podfence writes into the legacy tables, as another reader has it: python-iptables, which asks the kernel through
libiptc and never sees the text that podfence writes and reads."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from enforcer.keeping.host import read
from enforcer.rules.parse import Counted
from enforcer.rules.ruleset import (
    Drop,
    Dst,
    Goto,
    InInterface,
    InSet,
    Jump,
    Nflog,
    OutInterface,
    Proto,
    Reject,
    Return,
    Rule,
    Src,
)
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import BACKENDS, FAMILIES, World
from tests.enforcer.test_kernel import world as world

pytestmark = pytest.mark.kernel

# In a process of its own: libiptc stays in the namespace in which it was first asked.
_DUMP = "import iptc.easy, json, sys; print(json.dumps(iptc.easy.dump_table('filter', ipv6=sys.argv[1] == '6')))"
Seen = dict[str, Any]


@pytest.mark.parametrize("backend", BACKENDS[:1], ids=["legacy"])
def test_another_reader_finds_the_same_rules(world: World) -> None:
    world.enforce(API)
    for family in FAMILIES:
        theirs = json.loads(world.lab.run("n1", [sys.executable, "-c", _DUMP, str(family)]).stdout)
        with world.lab.inside("n1"):
            ours = read(world.backend, family).tables
        chains = {name: [_theirs(rule) for rule in rules] for name, rules in theirs.items() if name in ours.chains}
        assert chains == {name: [*map(_ours, rules)] for name, rules in ours.chains.items()}
        assert sum(map(len, chains.values())) > 50
        assert theirs["FORWARD"][0]["target"] == "PODFENCE-FORWARD"


def _ours(counted: Counted) -> Seen:
    """What of a rule both say in few words."""
    rule = counted.rule
    assert isinstance(rule, Rule)
    seen: Seen = {"sets": sorted([m.name, *m.fields] for m in rule.matches if isinstance(m, InSet))}
    if rule.comment:
        seen["comment"] = rule.comment
    for match in rule.matches:
        match match:
            case Src(prefix):
                seen["src"] = str(prefix)
            case Dst(prefix):
                seen["dst"] = str(prefix)
            case InInterface(name):
                seen["in-interface"] = name
            case OutInterface(name):
                seen["out-interface"] = name
            case Proto(name):
                seen["protocol"] = name
    match rule.target:
        case Jump(chain):
            seen["target"] = chain
        case Goto(chain):
            seen["target"] = {"goto": chain}
        case Return():
            seen["target"] = "RETURN"
        case Drop():
            seen["target"] = "DROP"
        case Reject(reply):
            seen["target"] = {"REJECT": {"reject-with": reply}}
        case Nflog(group, prefix):
            seen["target"] = {"NFLOG": {"nflog-group": str(group), "nflog-prefix": prefix}}
    return seen


def _theirs(rule: Seen) -> Seen:
    found = rule.get("set", [])
    matches = [found] if isinstance(found, dict) else found
    seen: Seen = {"sets": sorted([m["match-set"][0], *m["match-set"][1].split(",")] for m in matches)}
    for key in ("src", "dst", "in-interface", "out-interface", "protocol", "target"):
        if key in rule:
            seen[key] = rule[key]
    if rule.get("protocol") == "icmpv6":
        seen["protocol"] = "ipv6-icmp"
    if isinstance(target := rule.get("target"), dict) and "NFLOG" in target:
        seen["target"] = {"NFLOG": {key: target["NFLOG"][key] for key in ("nflog-group", "nflog-prefix")}}
    if "comment" in rule:
        seen["comment"] = rule["comment"]["comment"]
    return seen
