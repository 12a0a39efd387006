"""`podfence demo`: policies on a cluster of network namespaces, and a real packet for every flow.

It does by itself what an operator would do by hand: `lab up`, `node apply` on each node, `lab probe`, `verdicts`, and
`explain` for one flow that is denied. Each packet's fate must be what the verdict says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from podfence.options import format_option
from podfence.output import Form, line, show
from policy.errors import HostRefused, UsageError

if TYPE_CHECKING:
    from lab.cluster import Lab
    from lab.probe import Probe
    from lab.topology import Listen
    from policy.model import Cluster

EXAMPLE = Path(os.path.relpath(Path(__file__).parents[1] / "manifests/examples/shop"))
PODFENCE = (sys.executable, "-m", "podfence")
# Every place listens there as well: a port that no pod declares, for rules without ports and for the outside.
HTTPS: Listen = ("TCP", 443)


class Checked(Struct, frozen=True):
    """One flow: what the verdict says of either half, and what became of its packet."""

    probe: Probe
    egress: bool
    ingress: bool
    outcome: str

    @property
    def allowed(self) -> bool:
        return self.egress and self.ingress

    @property
    def agrees(self) -> bool:
        """A packet that passes is answered; one that is denied is rejected, or lost without a word."""
        return self.outcome in (("open", "refused") if self.allowed else ("rejected", "dropped"))


@click.command("demo")
@format_option
def command(form: Form) -> int:
    """Enforce an example on a lab and prove it with packets.

    Ends with 1 if any packet's fate differs from its verdict. Nothing stays when it ends.
    """
    from lab import netns
    from podfence.load import load

    if not EXAMPLE.exists():
        raise UsageError(f"there is no {EXAMPLE}: the demo runs in a checkout")
    if not netns.privileged():
        again = netns.rootless([*PODFENCE, *sys.argv[1:]])
        os.execvp(again[0], again)
    cluster = load([str(EXAMPLE)]).cluster
    started = time.monotonic()
    checked = enforce(cluster, line if form == "text" else silent)
    seconds = time.monotonic() - started
    show(form, document(checked, seconds), lambda: ())
    if form == "text":
        show_matrix(checked)
        show_differences(checked, seconds)
        explain_one(checked)
    return 0 if all(each.agrees for each in checked) else 1


def silent(_text: str) -> None:
    """Where the answer is a document, nothing else is said."""


def enforce(cluster: Cluster, tell: Callable[[str], None]) -> list[Checked]:
    """Every flow, once the policies are applied; `tell` hears how far it is. HostRefused where packets are lost
    without any policy."""
    from lab.cluster import Lab
    from podfence.lab import every_probe, sent

    tell(f"{EXAMPLE}: {len(cluster.pods)} pods, {len(cluster.nodes)} nodes, {len(cluster.policies)} policies")
    with Lab(f"demo-{os.getpid()}", cluster, [HTTPS]) as lab:
        probes = every_probe(lab, [HTTPS])
        before = [result.outcome.value for result in sent(lab, probes)]
        tell(f"before: {before.count('open')} of {len(probes)} flows pass")
        if set(before) != {"open"}:
            raise HostRefused("without any policy all flows should pass: something on this host drops packets")
        for node in lab.nodes:
            started = time.monotonic()
            apply(lab, node)
            tell(f"node {node}: policies applied in {time.monotonic() - started:.1f} s")
        outcomes = [result.outcome.value for result in sent(lab, probes)]
        halves = verdicts(lab, probes)
    return [Checked(probe, *verdict, outcome) for probe, verdict, outcome in zip(probes, halves, outcomes, strict=True)]


def apply(lab: Lab, node: str) -> None:
    """`podfence node apply`, run where the node's agent would run."""
    done = lab.run(node, [*PODFENCE, "node", "apply", "-f", str(EXAMPLE), "--node", node])
    if done.returncode != 0:
        raise HostRefused(f"node {node}: {done.stderr.strip() or done.stdout.strip()}")


def document(checked: Sequence[Checked], seconds: float) -> dict[str, object]:
    """What `-o json` and `-o yaml` print: the counts, and each flow with its verdict's halves and its packet's fate."""
    flows = [
        {
            "src": each.probe.src,
            "dst": str(each.probe.dst),
            "protocol": each.probe.protocol,
            "port": each.probe.port,
            "family": each.probe.family,
            "egress": each.egress,
            "ingress": each.ingress,
            "outcome": each.outcome,
        }
        for each in checked
    ]
    passing, agreeing = sum(each.allowed for each in checked), sum(each.agrees for each in checked)
    return {
        "passing": passing,
        "denied": len(checked) - passing,
        "differ": len(checked) - agreeing,
        "seconds": round(seconds, 1),
        "flows": flows,
    }


def show_differences(checked: Sequence[Checked], seconds: float) -> None:
    """Each packet that did not do what its verdict says, and the counts."""
    wrong = [each for each in checked if not each.agrees]
    for each in wrong:
        verdict = "allowed" if each.allowed else "denied"
        line(f"{flow(each.probe)}: the verdict is {verdict}, the packet was {each.outcome}")
    passing = sum(each.allowed for each in checked)
    line(
        f"after: {passing} flows pass, {len(checked) - passing} are denied, {len(wrong)} differ from their"
        f" verdicts ({len(checked)} real packets each time, {seconds:.1f} s)",
        fg="red" if wrong else "green",
        bold=True,
    )


def verdicts(lab: Lab, probes: Sequence[Probe]) -> list[tuple[bool, bool]]:
    """Whether egress and ingress allow each flow, by `podfence verdicts`. Addresses name the ends: a family each."""
    questions = "".join(
        json.dumps(
            {
                "src": str(lab.host(probe.src).address(probe.family)),
                "dst": str(lab.host(str(probe.dst)).address(probe.family)),
                "protocol": probe.protocol,
                "port": probe.port,
            }
        )
        + "\n"
        for probe in probes
    )
    done = subprocess.run(
        [*PODFENCE, "verdicts", "-f", EXAMPLE, "--flows", "-"],
        input=questions,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answers = [json.loads(answer) for answer in done.stdout.splitlines()]
    return [(answer["egress"], answer["ingress"]) for answer in answers]


def flow(probe: Probe) -> str:
    return f"{probe.src} -> {probe.dst} {probe.port}/{probe.protocol.lower()} IPv{probe.family}"


def show_matrix(checked: Sequence[Checked]) -> None:
    """Sources down, destinations across by number; each cell is all flows between the two."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from podfence.output import printable

    places = list(dict.fromkeys([*(each.probe.src for each in checked), *(str(each.probe.dst) for each in checked)]))
    cells: dict[tuple[str, str], list[Checked]] = {}
    for each in checked:
        cells.setdefault((each.probe.src, str(each.probe.dst)), []).append(each)
    table = Table(box=None, padding=(0, 1, 0, 0), title_justify="left")
    for heading in ("", "from \\ to", *map(str, range(1, len(places) + 1))):
        table.add_column(heading, justify="left" if heading.startswith("from") else "right", no_wrap=True)
    for number, src in enumerate(places, 1):
        row = [Text(*symbol(cells.get((src, dst), []))) for dst in places]
        table.add_row(str(number), printable(src), *row)
    console = Console(highlight=False)
    console.print(table)
    console.print("● all flows pass   ◐ some   · none   ✗ a packet differs from its verdict")


def symbol(cell: Sequence[Checked]) -> tuple[str, str]:
    """What a cell shows, and its style."""
    if not cell:
        return "", ""
    if not all(each.agrees for each in cell):
        return "✗", "bold red"
    passing = sum(each.allowed for each in cell)
    return ("●", "green") if passing == len(cell) else ("◐", "yellow") if passing else ("·", "dim")


def explain_one(checked: Sequence[Checked]) -> None:
    """`podfence explain` for a flow that one of its ends allows and the other denies, on a port that a pod declares."""
    torn = [
        each.probe
        for each in checked
        if each.ingress and not each.egress and (each.probe.protocol, each.probe.port) != HTTPS
    ]
    if not torn:
        return
    probe = torn[0]
    arguments = ["explain", probe.src, str(probe.dst), "--port", f"{probe.port}/{probe.protocol.lower()}"]
    line(" ".join(["$ podfence", *arguments, "-f", str(EXAMPLE)]), bold=True)
    sys.stdout.flush()
    subprocess.run([*PODFENCE, *arguments, "-f", EXAMPLE], check=False)
