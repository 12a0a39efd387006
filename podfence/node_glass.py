"""`podfence node open` and `close`: break-glass, with or without a living agent; and `wait`, for init containers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import click

from podfence.node_options import backend_option, warn
from podfence.options import format_option
from podfence.output import Form, show
from policy.errors import HostRefused, UsageError

if TYPE_CHECKING:
    from enforcer.kernel.backend import Mode

STATE_DIR = "/run/podfence"
_POLL = 0.02
_PATIENCE = 5.0
state_dir_option = click.option(
    "--state-dir", default=STATE_DIR, show_default=True, envvar="PODFENCE_STATE_DIR", help="The agent's folder."
)


def agent_status(state_dir: str) -> dict[str, Any] | None:
    """What the agent of this node says of itself; None where none answers."""
    from enforcer.agent.serve_local import ask

    try:
        return next(ask(state_dir, {"ask": "status"}), None)
    except HostRefused:
        return None


@click.command("open")
@click.option("--reason", required=True, help="Why; it is logged, and shown to everybody who asks for the status.")
@state_dir_option
@backend_option
@format_option
def open_command(reason: str, state_dir: str, backend: Mode | Literal["auto"], form: Form) -> int:
    """BREAK-GLASS: stop enforcing on this node, at once, until `podfence node close`.

    It stays open through restarts of the agent, and works where no agent lives. The annotation
    podfence.io/break-glass=REASON on the Node does the same where an agent lives.
    """
    from enforcer.agent.opening import open_node

    open_node(state_dir, reason)
    by_agent = _agent_follows(state_dir, opened=True)
    if not by_agent:
        from enforcer.keeping.host import cleanup
        from enforcer.kernel.backend import detect

        cleanup(detect(backend))
    who = "the agent has taken its rules out" if by_agent else "no agent answers, the rules were taken out"
    show(form, {"opened": True, "agent": by_agent}, lambda: ())
    warn(f"this node is OPEN: {who}; `podfence node close` closes it")
    return 0


@click.command("close")
@state_dir_option
@format_option
def close_command(state_dir: str, form: Form) -> int:
    """Enforce again on a node that was opened."""
    from enforcer.agent.opening import close_node

    was_open = close_node(state_dir)
    enforced = was_open and _agent_follows(state_dir, opened=False)
    text = "this node is enforced again" if enforced else "this node was not opened by `podfence node open`"
    show(form, {"was_open": was_open, "agent": enforced}, lambda: [text] if enforced or not was_open else [])
    if was_open and not enforced:
        warn("no agent answers: nothing enforces on this node until one is started")
    return 0


def _agent_follows(state_dir: str, opened: bool) -> bool:
    """Whether an agent lives and has done what the file says."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        status = agent_status(state_dir)
        if status is None:
            return False
        if bool(status["opened"]) == opened and (status["mode"] == "off") == opened:
            return True
        time.sleep(_POLL)
    raise HostRefused("an agent lives, and has not followed within 5 s: see its log")


@click.command("wait")
@click.option("--uid", envvar="POD_UID", default="", help="metadata.uid of the pod, or $POD_UID.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds; then it ends with 1."
)
@state_dir_option
@format_option
def wait_command(uid: str, timeout: float, state_dir: str, form: Form) -> int:
    """Wait until a pod's policies hold on its node; for an init container.

    It needs the folder /run/podfence/pods of the node, to read.
    """
    from enforcer.agent.programmed import holds, is_uid

    if not is_uid(uid):
        raise UsageError("--uid: expected a pod's UID")
    until = time.monotonic() + timeout
    while not (there := holds(state_dir, uid)) and time.monotonic() < until:
        time.sleep(_POLL)
    text = f"the policies of pod {uid} hold" if there else f"the policies of pod {uid} do not hold after {timeout:g} s"
    show(form, {"uid": uid, "holds": there}, lambda: [text])
    return 0 if there else 1
