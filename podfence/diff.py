"""`podfence diff`: the flows that a change opens and closes, and the rules that do it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import click
from msgspec import Struct

from podfence.options import api_options, recursive_option
from podfence.output import line, markdown, show
from policy.errors import UnknownVerdict, UsageError

if TYPE_CHECKING:
    from compiler.compare import Cause, Change
    from compiler.units import Group, Side
    from policy.model import Cluster, NetworkPolicy

DiffForm = Literal["text", "json", "yaml", "markdown"]
Fail = Literal["opened", "closed", "any"]
_SHOWN = 6


class Workload(Struct, frozen=True):
    """Equal pods: their workload, or the first of them, and how many they are."""

    name: str
    pods: int

    def __str__(self) -> str:
        return f"{self.name} ({self.pods} pods)" if self.pods > 1 else self.name


class Why(Struct, frozen=True, omit_defaults=True):
    """What did it, where it stands: `admits` is a rule that only that side has, `isolates` a policy that closes the
    direction there only, `exists` that the workload is there only."""

    side: str
    direction: str
    what: Literal["admits", "isolates", "exists"]
    policy: str = ""
    field: str = ""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f" ({self.file}:{self.line})" if self.file else ""
        if self.what == "exists":
            return f"{self.direction}: the workload is there on the {self.side} side only"
        if self.what == "isolates":
            return f"{self.direction}: {self.policy} isolates, on the {self.side} side only{place}"
        return f"{self.direction}: {self.policy} {self.field}{place}"


class Difference(Struct, frozen=True, omit_defaults=True):
    """From each of `src` to each of `dst`. Where the other end is no pod, `outside` holds its addresses as blocks."""

    change: Literal["opened", "closed"]
    ports: str
    src: list[Workload] = []
    dst: list[Workload] = []
    outside: str = ""
    family: str = ""
    why: list[Why] = []

    def __str__(self) -> str:
        return f"{_ends(self.src, self.outside)} -> {_ends(self.dst, self.outside)}, {self.ports}{self.family}"


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option(
    "-f",
    "--filename",
    "paths",
    metavar="PATH",
    multiple=True,
    help="What both sides have: the cluster's pods and namespaces, for sides that hold policies only.",
)
@recursive_option
@api_options
@click.option(
    "--prune",
    is_flag=True,
    help="Beside cluster: policies that the files don't hold are gone, in the namespaces that they speak of.",
)
@click.option("--exit-code", is_flag=True, help="End with 1 where there is any difference, as --fail-on any.")
@click.option(
    "--fail-on", type=click.Choice(["opened", "closed", "any"]), help="End with 1 where flows are opened, or closed."
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["text", "json", "yaml", "markdown"]),
    default="text",
    show_default=True,
    help="How to print the answer; markdown is for a pull request.",
)
def command(
    old: str,
    new: str,
    paths: tuple[str, ...],
    recursive: bool,
    context: str | None,
    kubeconfig: str | None,
    prune: bool,
    exit_code: bool,
    fail_on: Fail | None,
    form: DiffForm,
) -> int:
    """Show the flows that are opened and closed between OLD and NEW.

    \b
    OLD and NEW are a file, a folder, - for stdin, a git revision and a path, or a cluster:
      podfence diff HEAD~1:policies policies -f cluster.yaml
      podfence diff cluster: policies
    Beside cluster:, files are what is applied to it: that side is the cluster with them on top.
    Which cluster that is, --context and --kubeconfig say.
    By workload, in whole port ranges; what is outside the cluster, as blocks of addresses.
    A pod is the same on both sides by its name, else by its workload.
    """
    from compiler.compare import compare
    from compiler.compile import compile_cluster
    from podfence.sides import Common, read_sides

    if [old, new, *paths].count("-") > 1:
        raise UsageError("stdin can be one side only")
    read = read_sides(old, new, Common(paths, recursive, context, kubeconfig, prune))
    sides: dict[Side, Cluster] = {"old": read[0], "new": read[1]}
    for side, cluster in sides.items():
        if not any(pod.selectable for pod in cluster.pods):
            raise UnknownVerdict(
                f"the {side} side has no pod, so no flow can be known: give the cluster's pods with -f"
            )
    changes = compare(*map(compile_cluster, sides.values()))
    policies = {side: {each.key: each for each in cluster.policies} for side, cluster in sides.items()}
    found = [_difference(change, policies) for change in changes]
    if form == "markdown":
        for text in _markdown(found, old, new):
            click.echo(text)
    else:
        show(form, found, lambda: _lines(found))
        if form == "text":
            line(_summary(found), bold=True)
    kinds = {each.change for each in found}
    wanted = {"any"} if exit_code else {fail_on}
    return 1 if (kinds & wanted) or ("any" in wanted and kinds) else 0


def _difference(change: Change, policies: dict[Side, dict[str, NetworkPolicy]]) -> Difference:
    from compiler.regions import address_text

    families = ", ".join(f"IPv{family}" for family in change.families)
    return Difference(
        change.kind,
        str(change.ports),
        _workloads(change.src),
        _workloads(change.dst),
        address_text(change.outside) if change.outside else "",
        f" (only {families})" if families else "",
        [_why(cause, policies) for cause in change.causes],
    )


def _workloads(groups: tuple[Group, ...]) -> list[Workload]:
    return [Workload(group.name, len(group.pods)) for group in groups]


def _why(cause: Cause, policies: dict[Side, dict[str, NetworkPolicy]]) -> Why:
    from policy.source import path_text

    if not cause.policy:
        return Why(cause.side, cause.direction, "exists")
    path = cause.rule.path if cause.rule else ()
    source = policies[cause.side][cause.policy].source
    place = (source.file, source.line_of(path)) if source else ("", 0)
    what: Literal["admits", "isolates"] = "admits" if cause.rule else "isolates"
    return Why(cause.side, cause.direction, what, cause.policy, path_text(path), *place)


def _ends(workloads: list[Workload], outside: str) -> str:
    if not workloads:
        return f"outside ({outside})"
    shown = ", ".join(map(str, workloads[:_SHOWN]))
    more = len(workloads) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _lines(found: list[Difference]) -> Iterator[str]:
    for each in found:
        yield f"{each.change}: {each}"
        yield from (f"  {why}" for why in each.why)


def _summary(found: list[Difference]) -> str:
    if not found:
        return "no flow is opened or closed"
    return ", ".join(f"{sum(each.change == kind for each in found)} {kind}" for kind in ("opened", "closed"))


def _markdown(found: list[Difference], old: str, new: str) -> Iterator[str]:
    """A table for each kind, names escaped: they come from the cluster, and the page is somebody's to read."""
    yield f"### Network policy: {_summary(found)}"
    yield ""
    yield f"From `{_code(old)}` to `{_code(new)}`, by `podfence diff`."
    for kind in ("opened", "closed"):
        same = [each for each in found if each.change == kind]
        if not same:
            continue
        yield from ("", f"| {kind}: from | to | ports | by |", "| --- | --- | --- | --- |")
        for each in same:
            cells = (_ends(each.src, each.outside), _ends(each.dst, each.outside), f"{each.ports}{each.family}")
            by = "<br>".join(markdown(str(why)) for why in each.why)
            yield f"| {' | '.join(map(markdown, cells))} | {by} |"


def _code(text: str) -> str:
    """For a code span, in which only backticks and line ends mean anything."""
    from podfence.output import printable

    return printable(text).replace("`", "'")
