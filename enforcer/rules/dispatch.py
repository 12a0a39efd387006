"""From an address to its leaf: a tree over the pod addresses of a node, two bits a level.

A packet compares at most four addresses a level, whatever the number of pods. Levels at which all addresses agree are
left out. What no leaf takes leaves every chain for the same place. Why two bits: docs/adr/0007.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enforcer.rules.names import branch_chain
from enforcer.rules.ruleset import Dst, Goto, Match, Rule, Src
from policy.cidr import BITS, Address, Prefix
from policy.model import Direction

BITS_PER_LEVEL = 2
LEAVES_PER_CHAIN = 4
Chains = dict[str, tuple[Rule, ...]]


def dispatch(direction: Direction, root: str, leaves: Mapping[Address, Sequence[Rule]], otherwise: str) -> Chains:
    """The chains of the tree, which starts at `root`. `leaves` are the rules of each address, which match nothing but
    packets of that address; `otherwise` is the chain for everything else. All addresses are of one family."""
    chains: Chains = {}
    _branch(direction, root, root, sorted(leaves), leaves, otherwise, chains)
    return chains


def _branch(
    direction: Direction,
    root: str,
    chain: str,
    addresses: Sequence[Address],
    leaves: Mapping[Address, Sequence[Rule]],
    otherwise: str,
    chains: Chains,
) -> None:
    leave = Rule((), Goto(otherwise))
    if len(addresses) <= LEAVES_PER_CHAIN:
        chains[chain] = (*(rule for address in addresses for rule in leaves[address]), leave)
        return
    length = (_shared_bits(addresses[0], addresses[-1]) // BITS_PER_LEVEL + 1) * BITS_PER_LEVEL
    groups: dict[Prefix, list[Address]] = {}
    for address in addresses:
        host_bits = BITS[address.family] - length
        prefix = Prefix(address.family, address.value >> host_bits << host_bits, length)
        groups.setdefault(prefix, []).append(address)
    rules = []
    for prefix, members in groups.items():
        branch = branch_chain(direction, prefix, root)
        rules.append(Rule((_end(direction, prefix),), Goto(branch)))
        _branch(direction, root, branch, members, leaves, otherwise, chains)
    chains[chain] = (*rules, leave)


def _end(direction: Direction, prefix: Prefix) -> Match:
    return Dst(prefix) if direction == "ingress" else Src(prefix)


def _shared_bits(a: Address, b: Address) -> int:
    return BITS[a.family] - (a.value ^ b.value).bit_length()
