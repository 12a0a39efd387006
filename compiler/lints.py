"""All lints, in the order of their ids."""

from __future__ import annotations

from compiler import lint_effect, lint_egress, lint_ports, lint_selectors
from compiler.compile import Compiled
from compiler.lint import Finding, Rule, World

_MODULES = (lint_selectors, lint_effect, lint_ports, lint_egress)
RULES: dict[str, Rule] = {
    rule.id: rule
    for rule in sorted(
        (found for module in _MODULES for found in vars(module).values() if isinstance(found, Rule)),
        key=lambda rule: rule.id,
    )
}


def lint(compiled: Compiled) -> list[Finding]:
    """Every finding, by file and line where there are any, else by policy. Where no pod is known, lints that need pods
    say nothing."""
    world = World(compiled)
    found = [each for module in _MODULES for each in module.lint(world) if world.pods or not each.rule.needs_pods]
    return sorted(found, key=_order)


def _order(found: Finding) -> tuple[object, ...]:
    source = found.policy.source
    place = (source.file, source.line_of(found.path)) if source else ("", 0)
    return *place, found.policy.key, found.rule.id
