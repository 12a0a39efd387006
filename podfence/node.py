"""`podfence node`: a node's rules from files, as text, as a plan, in the kernel, read back, and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from podfence.node_agent import agent
from podfence.node_connections import connections_command
from podfence.node_denials import denials_command
from podfence.node_flows import ExistingFlows, existing_flows_option, flow_counts, mark_warnings
from podfence.node_glass import close_command, open_command, state_dir_option, wait_command
from podfence.node_options import NodeOptions, backend_option, compile_files, node_options, view_of, warn
from podfence.options import files_option, format_option, recursive_option
from podfence.output import Form, line, printable, show
from podfence.sources import Sources, source_options

if TYPE_CHECKING:
    from enforcer.kernel.backend import Mode
    from enforcer.readback.status import FamilyStatus
    from enforcer.rules.steps import Step
    from policy.cidr import Family


@click.group("node")
def command() -> None:
    """Render, plan, apply, read back or remove a node's rules."""


for _each in (agent, connections_command, denials_command, open_command, close_command, wait_command):
    command.add_command(_each)


@command.command("render")
@files_option
@recursive_option
@node_options
@click.option("--family", "chosen", type=click.Choice(["4", "6"]), help="One family only.")
@format_option
def render(
    paths: tuple[str, ...], recursive: bool, options: NodeOptions, chosen: Literal["4", "6"] | None, form: Form
) -> int:
    """Print the rules that a node should have, as ipset restore and iptables-restore take them.

    Touches nothing and needs no root: interfaces come from the routes of this host, or from --interface.
    """
    from enforcer.rules.layout import layout
    from enforcer.rules.parse import Installed
    from enforcer.rules.plan import Actual, plan

    families: tuple[Family, ...] = (4, 6) if chosen is None else (4,) if chosen == "4" else (6,)
    compiled = compile_files(paths, recursive)
    view = view_of(compiled, options)
    steps = {
        f"IPv{family}": plan(Actual(family, Installed({}, {}), {}), layout(compiled, view, family))
        for family in families
    }
    answer = {name: [{"step": describe(step), "text": step.text} for step in plan] for name, plan in steps.items()}
    show(form, answer, lambda: ())
    if form == "text":
        for name, plan_steps in steps.items():
            for step in plan_steps:
                click.echo(f"# {name}: {printable(describe(step))}\n{step.text}")
    return 0


@command.command("plan")
@files_option
@recursive_option
@node_options
@existing_flows_option
@format_option
def plan_command(
    paths: tuple[str, ...], recursive: bool, options: NodeOptions, existing_flows: ExistingFlows, form: Form
) -> int:
    """Show the steps from what this host's kernel holds to what it should hold. Changes nothing."""
    return _plan_and_apply(paths, recursive, options, existing_flows, form, carry_out=False)


@command.command("apply")
@files_option
@recursive_option
@node_options
@existing_flows_option
@format_option
def apply(
    paths: tuple[str, ...], recursive: bool, options: NodeOptions, existing_flows: ExistingFlows, form: Form
) -> int:
    """Enforce the policies in the files on this host, for the pods of --node."""
    return _plan_and_apply(paths, recursive, options, existing_flows, form, carry_out=True)


def _plan_and_apply(
    paths: tuple[str, ...],
    recursive: bool,
    options: NodeOptions,
    existing_flows: ExistingFlows,
    form: Form,
    carry_out: bool,
) -> int:
    from enforcer.connections.flows import Change
    from enforcer.keeping.host import execute, plans
    from enforcer.kernel.backend import detect

    compiled = compile_files(paths, recursive)
    backend = detect(options.backend)
    view = view_of(compiled, options)
    found = plans(backend, compiled, view)
    change = Change(compiled, view, [family_plan.actual for family_plan in found])
    end = existing_flows == "end"
    if carry_out:
        for family_plan in found:
            execute(backend, family_plan.steps)
    flows = change.settle(end) if carry_out else change.foresee(end)
    answer = {
        "backend": backend.mode,
        "applied": carry_out,
        "steps": {f"IPv{p.actual.family}": [describe(step) for step in p.steps] for p in found},
        "flows": flows,
    }
    show(form, answer, lambda: ())
    if form == "text":
        for family_plan in found:
            _print_steps(f"IPv{family_plan.actual.family}, iptables-{backend.mode}", family_plan.steps)
        line(f"existing flows: {flow_counts(flows)}")
    for warning in mark_warnings(backend, options.mark, flows):
        warn(warning)
    return 0


@command.command("verify")
@files_option
@recursive_option
@node_options
@click.option("--follow", is_flag=True, help="Answer again whenever rules or sets change, until interrupted.")
@format_option
def verify_command(paths: tuple[str, ...], recursive: bool, options: NodeOptions, follow: bool, form: Form) -> int:
    """Prove that what is installed on this host does what the policies say, or show a packet on which it does not.

    Ends with 1 if nothing is proven. What makes no difference to any packet is no difference.
    """
    from enforcer.kernel.backend import detect
    from podfence.node_verify import verify_node

    compiled = compile_files(paths, recursive)
    backend = detect(options.backend)
    return verify_node(compiled, view_of(compiled, options), backend, form, follow)


@command.command("status")
@backend_option
@state_dir_option
@format_option
def status_command(backend: Mode | Literal["auto"], state_dir: str, form: Form) -> int:
    """Say what of podfence's is installed on this host, who was denied how often, and how the agent is if one lives.

    Ends with 1 if the rules are not in force.
    """
    from enforcer.keeping.host import read
    from enforcer.kernel.backend import detect
    from enforcer.readback.status import status
    from podfence.node_glass import agent_status
    from podfence.status import agent_text

    chosen = detect(backend)
    found = [status(read(chosen, family)) for family in chosen.families]
    said = agent_status(state_dir)
    show(form, {"backend": chosen.mode, "families": found, "agent": said}, lambda: ())
    if form == "text":
        line(f"agent: {agent_text(said)}" if said else "agent: none answers on this node")
        for one in found:
            line(f"IPv{one.family}, iptables-{chosen.mode}: {_summary(one)}", fg="green" if one.in_force else "red")
            for what, counts in (("denied", one.denied), ("would be denied", one.audited)):
                for each in counts:
                    where = f"{each.pod} ({each.address})"
                    line(f"  {what} {each.direction:<7} {each.packets:>8} packets  {where}")
    return 0 if all(one.in_force for one in found) else 1


def _summary(one: FamilyStatus) -> str:
    audit = one.mode == "audit"
    word = "NOT in force" if not one.in_force else "in audit" if audit else "in force"
    refused = f"{one.revoked} of ended flows"
    strangers = f"{one.spoofed} spoofed, {one.unknown} unknown"
    return (
        f"{word}; {one.chains} chains, {one.rules} rules, {one.sets} sets, {one.elements} entries; "
        f"isolated: {one.isolated['ingress']} for ingress, {one.isolated['egress']} for egress; "
        + (f"passed: {strangers}; dropped: {refused}" if audit else f"dropped: {strangers}, {refused}")
    )


@command.command("cleanup")
@backend_option
@format_option
def cleanup_command(backend: Mode | Literal["auto"], form: Form) -> int:
    """Remove every chain, rule and set of podfence from this host, and nothing else."""
    from enforcer.keeping.host import cleanup
    from enforcer.kernel.backend import detect

    chosen = detect(backend)
    done = dict(zip(chosen.families, cleanup(chosen), strict=True))
    show(form, {f"IPv{family}": [describe(step) for step in steps] for family, steps in done.items()}, lambda: ())
    if form == "text":
        for family, steps in done.items():
            _print_steps(f"IPv{family}, iptables-{chosen.mode}", steps)
    return 0


@command.command("probe")
@click.argument("src")
@click.argument("dst")
@click.option("--port", "port_text", required=True, metavar="PORT[/PROTOCOL]", help="8080, 53/udp, http or icmp.")
@source_options
@click.option("--node", metavar="NODE", help="Which node this host is, if not by its name.")
@click.option("--lab", metavar="NAME", help="From a pod of this lab.")
@click.option("--timeout", default=1.0, show_default=True, help="Silence of so many seconds is a drop.")
@format_option
def probe_command(
    src: str,
    dst: str,
    port_text: str,
    sources: Sources,
    node: str | None,
    lab: str | None,
    timeout: float,
    form: Form,
) -> int:
    """Send one real packet from SRC, a pod of this node, to DST, and show the rule that took it.

    It is sent from inside the pod's network namespace, and nothing else is sent. Ends with 1 where its fate is not what
    the objects say.
    """
    from podfence.node_probe import probe

    return probe(sources, src, dst, port_text, lab, node, timeout, form)


def describe(step: Step) -> str:
    """One step in one line."""
    from enforcer.rules.steps import ChangeSet, DropSet, MakeSet, Transaction

    match step:
        case MakeSet(_, ipset):
            return f"make set {ipset.name}, {ipset.type}, {len(ipset.elements)} entries"
        case ChangeSet(name, add, remove):
            return f"change set {name}: {len(add)} more, {len(remove)} fewer entries"
        case Transaction(_, write, delete, jump, unjump):
            parts = [f"write {len(write)} chains"] if write else []
            parts += [f"delete {len(delete)} chains"] if delete else []
            parts += [f"take the jump out of {builtin}" for builtin, _ in unjump]
            parts += [f"put the jump first in {builtin}" for builtin in jump]
            return "in one transaction: " + ", ".join(parts)
        case DropSet(name):
            return f"drop set {name}"


def _print_steps(where: str, steps: tuple[Step, ...]) -> None:
    line(f"{where}: {len(steps)} steps" if steps else f"{where}: nothing to do")
    for step in steps:
        line(f"  {describe(step)}")
