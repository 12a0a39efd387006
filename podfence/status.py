"""`podfence status`: every node's agent, a line each, from wherever there is a kubeconfig."""

from __future__ import annotations

from typing import Any

import click
from msgspec import Struct

from podfence.options import api_options, format_option
from podfence.output import Form, line, show

_ASKED = ("podfence", "node", "status", "-o", "json")


class NodeLine(Struct, frozen=True):
    """One node; `agent` is what its agent says of itself, or `error` why nothing is known."""

    node: str
    pod: str
    ready: bool
    agent: dict[str, Any] | None = None
    error: str = ""


@click.command("status")
@api_options
@click.option("-n", "--namespace", default="podfence-system", show_default=True, help="Where the agents are.")
@format_option
def command(context: str | None, kubeconfig: str | None, namespace: str, form: Form) -> int:
    """Ask every node's agent how it is. Ends with 1 if any is not ready, and 3 if there is none to ask."""
    from podfence.agents import Agents, decoded

    agents = Agents(kubeconfig, context, namespace)
    found = []
    for answer in agents.ask(agents.find(), _ASKED):
        said = decoded(answer)
        error = said if isinstance(said, str) else "" if said.get("agent") else "no agent answers on the node"
        agent = None if isinstance(said, str) else said.get("agent")
        ready = bool(agent and not agent["waits_for"])
        found.append(NodeLine(answer.agent.node, answer.agent.pod, ready, agent, error))
    show(form, found, lambda: ())
    if form == "text":
        for each in found:
            line(_text(each), fg="green" if each.ready else "red")
        if not found:
            line(f"no agent in namespace {namespace}")
    return 3 if not found else 0 if all(each.ready for each in found) else 1


def _text(each: NodeLine) -> str:
    return f"{each.node:<20} " + (agent_text(each.agent) if each.agent else f"UNKNOWN    {each.error}")


def agent_text(said: dict[str, Any]) -> str:
    """What an agent says of itself, in one line."""
    word = "OPEN" if said["opened"] else said["phase"] if said["waits_for"] else "ready"
    kernel = said["kernel"].values()
    isolated = ", ".join(f"{count} isolated for {direction}" for direction, count in said["isolated"].items())
    sizes = f"{sum(k['rules'] for k in kernel)} rules, {sum(k['entries'] for k in kernel)} entries"
    why = f"; waits for {said['waits_for'][0]}" if said["waits_for"] else ""
    closed = [*said.get("quarantined", ()), *(f"NetworkPolicy {key} (too large)" for key in said.get("too_large", ()))]
    shut = f"; closed: {', '.join(closed)}" if closed else ""
    return f"{word:<10} {said['mode']}, {said['backend']}, {said['local_pods']} pods ({isolated}), {sizes}{why}{shut}"
