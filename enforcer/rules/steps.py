"""What a plan is made of: ordered steps, as data that can be printed, counted and carried out."""

from __future__ import annotations

from msgspec import Struct

from enforcer.rules.dispatch import Chains
from enforcer.rules.render import chains_text, create_text, element_text
from enforcer.rules.ruleset import Element, HookName, IpSet
from policy.cidr import Family


class MakeSet(Struct, frozen=True, tag=True):
    """A new set, filled; nothing looks in it yet."""

    family: Family
    ipset: IpSet

    @property
    def text(self) -> str:
        return create_text(self.ipset, self.family)


class ChangeSet(Struct, frozen=True, tag=True):
    """Members of a counting set that come and go."""

    name: str
    add: tuple[Element, ...]
    remove: tuple[Element, ...]

    @property
    def text(self) -> str:
        lines = [f"add {self.name} {element_text(element)}" for element in self.add]
        lines += (f"del {self.name} {element_text(element)}" for element in self.remove)
        return "\n".join([*lines, ""])


class Transaction(Struct, frozen=True, tag=True):
    """One atomic change of the filter table. `jump`: the hooks to (re)place; `unjump`: our jumps to take out first.
    `insert`: rules that come before those that a chain has, and let no packet through to them."""

    family: Family
    write: Chains
    delete: tuple[str, ...] = ()
    jump: dict[HookName, str] = {}
    unjump: tuple[tuple[HookName, str], ...] = ()
    insert: Chains = {}

    @property
    def text(self) -> str:
        return chains_text(self.write, self.delete, self.jump, self.unjump, self.insert)


class DropSet(Struct, frozen=True, tag=True):
    """A set that nothing looks in any more."""

    name: str

    @property
    def text(self) -> str:
        return f"destroy {self.name}\n"


Step = MakeSet | ChangeSet | Transaction | DropSet
Plan = tuple[Step, ...]
