"""`podfence lint`: policies that mean something else than was probably meant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import click
from msgspec import Struct

from podfence.output import line, show
from podfence.sources import Sources, object_options

if TYPE_CHECKING:
    from compiler.lint import Finding, Severity
    from podfence.sarif import Found

LintForm = Literal["text", "json", "yaml", "sarif", "junit", "github"]


class Warned(Struct, frozen=True):
    """One finding. `file` is "" where its policy came from an API server. `page` is where its id is explained."""

    id: str
    title: str
    severity: Severity
    policy: str
    field: str
    file: str
    line: int
    reason: str
    fix: str
    page: str

    @property
    def said(self) -> str:
        """What is the matter, with which field of which policy."""
        return f"{self.policy}: {f'{self.field}: ' if self.field else ''}{self.reason}"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        return f"{place}{self.severity} {self.id} {self.said}"


@click.command("lint")
@object_options
@click.option(
    "--fail-on",
    type=click.Choice(["note", "warning", "error", "never"]),
    default="warning",
    show_default=True,
    help="End with 1 where a finding is at least so severe.",
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json", "yaml", "sarif", "junit", "github"]),
    default="text",
    show_default=True,
    help="How to print the answer; github is for workflow annotations.",
)
def command(sources: Sources, fail_on: Literal["note", "warning", "error", "never"], form: LintForm) -> int:
    """Find policies that mean something else than was probably meant.

    \b
    Without -f: those of the cluster of the current context.
    Lints that compare policies with pods need pods or workloads among the files.
    A finding is ignored by a comment on its line, or right above it:
      # podfence:ignore PF003
    or by an annotation of its policy:
      podfence.io/lint-ignore: PF003
    docs/lint.md explains each id.
    """
    from compiler.lint import SEVERITIES
    from compiler.lints import lint
    from podfence.lint_ignore import Ignores, Place

    read = sources.everything()
    cluster = read.compiled.cluster
    if not any(pod.selectable for pod in cluster.pods):
        place = "files" if sources.paths else "cluster"
        click.echo(f"no pod or workload in the {place}: policies are not compared with any", err=True)
    ignores = Ignores(read.files, read.sent)
    found, ignored = [], 0
    for each in lint(read.compiled):
        warned = _warned(each)
        if ignores.has(Place(warned.file, warned.line, warned.policy, warned.id)):
            ignored += 1
        else:
            found.append(warned)
    _print(found, ignored, len(cluster.policies), form)
    if fail_on == "never":
        return 0
    return 1 if any(SEVERITIES.index(each.severity) >= SEVERITIES.index(fail_on) for each in found) else 0


def _warned(found: Finding) -> Warned:
    from policy.source import path_text

    source, rule = found.policy.source, found.rule
    place = (source.file, source.line_of(found.path)) if source else ("", 0)
    page = f"docs/lint.md#{rule.id.lower()}"
    field = path_text(found.path)
    return Warned(rule.id, rule.title, found.severity, found.policy.key, field, *place, found.reason, rule.fix, page)


def _print(found: Sequence[Warned], ignored: int, policies: int, form: LintForm) -> None:
    if form == "sarif":
        from compiler.lints import RULES
        from podfence.sarif import Known, sarif

        rules = [Known(rule.id, rule.title, rule.severity, rule.fix) for rule in RULES.values()]
        click.echo(json.dumps(sarif(rules, _found(found)), indent=2))
    elif form == "github":
        from podfence.sarif import github_lines

        for text in github_lines(_found(found)):
            click.echo(text)
    elif form == "junit":
        from podfence.junit import Tested, document

        tests = [
            Tested(f"{w.id} {w.policy}", w.file or w.policy, "failure", w.reason, f"{w}\nfix: {w.fix}") for w in found
        ]
        click.echo(document("podfence lint", tests or [Tested("no finding", "podfence lint")]))
    else:
        show(form, found, lambda: ())
        if form == "text":
            for each in found:
                line(str(each), fg={"note": "cyan", "warning": "yellow", "error": "red"}[each.severity])
                line(f"  {each.title}: {each.fix} ({each.page})")
            said = f", {ignored} ignored" if ignored else ""
            line(f"{policies} policies, {len(found)} findings{said}", bold=True)


def _found(found: Sequence[Warned]) -> Iterator[Found]:
    from podfence.sarif import Found

    for each in found:
        text = f"{each.said}. Fix: {each.fix}"
        yield Found(each.id, each.severity, each.policy, each.field, each.file, each.line, text)
