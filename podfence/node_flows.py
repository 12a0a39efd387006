"""What `podfence node` says and asks about open connections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from enforcer.connections.flows import Flows
    from enforcer.kernel.backend import Backend

ExistingFlows = Literal["end", "keep"]


def one_bit(text: str) -> int:
    """`0x1000` → 4096. For `type=` of an option."""
    try:
        value = int(text, 0)
    except ValueError:
        value = 0
    if 0 < value < 1 << 32 and value.bit_count() == 1:
        return value
    raise click.BadParameter(f"{text!r} is not one bit of 32, such as 0x1000")


mark_option = click.option(
    "--mark",
    type=one_bit,
    default="0x1000",
    show_default=True,
    help="The bit of the connection mark that says that a flow was ended; no one else may use it.",
)
existing_flows_option = click.option(
    "--existing-flows",
    type=click.Choice(["end", "keep"]),
    default="end",
    show_default=True,
    help="What becomes of open connections that the policies now forbid. A node's first sync ends none.",
)


def flow_counts(flows: Flows) -> str:
    """What becomes of existing flows, in one line."""
    parts = [f"{flows.ended} end"] if flows.ended else []
    parts += [f"{flows.restored} that had ended may go on"] if flows.restored else []
    if flows.spared:
        why = "the node's first sync ends none" if flows.first_sync else "they are to be kept"
        parts.append(f"{flows.spared} forbidden ones go on, since {why}")
    return ", ".join(parts) or "none change"


def mark_warnings(backend: Backend, mark: int, flows: Flows) -> Iterator[str]:
    """What speaks for another program that uses the bit."""
    from enforcer.keeping.host import mark_writers

    for rule in mark_writers(backend, mark):
        yield f"this rule writes the bit {mark:#x} of connection marks, podfence's by --mark: {rule}"
    if flows.first_sync and flows.restored:
        yield (
            f"{flows.restored} flows had the bit {mark:#x} of their connection mark before podfence was there: if"
            " another program sets it, choose another bit with --mark"
        )
