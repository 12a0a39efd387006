"""The answer of `podfence explain` as a document: what `-o json` prints, and what the text is made from.

Its form is `docs/schemas/explain-v1.json`. A field may be added within a version, none changed or removed.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from policy.obstacles import Change

API_VERSION = "podfence.io/explain/v1"
Word = Literal["allowed", "denied", "unknown"]
RestsOn = Literal["spec", "open", "ours"]


class Place(Struct, omit_defaults=True):
    """A policy, or a field of one; `file` and `line` where it came from a file. `ports` is what a rule admits where no
    port was asked for."""

    policy: str
    field: str = ""
    file: str = ""
    line: int = 0
    ports: str = ""

    def __str__(self) -> str:
        where = f" ({self.file}:{self.line})" if self.file else ""
        ports = f": {self.ports}" if self.ports else ""
        return f"{self.policy} {self.field}".rstrip() + where + ports


class ObstacleOut(Struct, omit_defaults=True):
    """One thing in a rule's way: `kind` for programs, `text` for people, `change` what would end it."""

    kind: str
    text: str
    change: Change | None = None


class MissOut(Struct):
    """How near a policy that isolates came: its closest rule, or itself where it has none."""

    place: Place
    obstacles: list[ObstacleOut]


class EndOut(Struct, omit_defaults=True):
    """One end, or several that are answered alike. `kind` is pod, workload, service, node, address, block or internet,
    as it was asked for."""

    names: list[str]
    kind: str
    addresses: list[str] = []
    nodes: list[str] = []


class Via(Struct, omit_defaults=True):
    """What translated the flow on its way: `asked` by the client, and where that `leads_to`."""

    asked: str
    leads_to: str


class Side(Struct, omit_defaults=True):
    """One direction's answer; `because` is `open` (no policy isolates the pod), `rule`, `no rule`, `self`, `own node`,
    `no pod` or `finished`. `ports` is what it allows where no port was asked for."""

    pod: str
    allowed: bool
    because: str
    rules: list[Place] = []
    isolated_by: list[Place] = []
    misses: list[MissOut] = []
    ports: str = ""


class RowOut(Struct):
    """A row of docs/semantics.md that the verdict rests on."""

    row: int
    source: RestsOn
    text: str


class Answer(Struct, omit_defaults=True):
    """The verdict on one pair of ends, or on several that are answered alike. Where a port was asked for, `protocol`
    and `port` are those that the pod sees; else `ports` are those that pass, "" for none."""

    src: EndOut
    dst: EndOut
    verdict: Word
    egress: Side
    ingress: Side
    rests_on: RestsOn
    rows: list[RowOut]
    protocol: str = ""
    port: int = 0
    ports: str | None = None
    via: Via | None = None
    notes: list[str] = []


class FixOut(Struct, omit_defaults=True):
    """The smallest change that turns the verdict, verified by compiling it. `policies` are in YAML, as they would be;
    `patches` are of the user's own files. `opens` and `closes` are the other flows that it changes."""

    text: str
    turns: Literal["allowed", "denied"]
    policies: list[str] = []
    patches: list[str] = []
    opens: list[str] = []
    closes: list[str] = []


class StepOut(Struct):
    """A rule that the packet matched on its way, and how many it has counted."""

    chain: str
    rule: str
    packets: int


class WalkOut(Struct, omit_defaults=True):
    """The way of the flow's first packet through what is installed on one node. `drift`: the kernel does otherwise than
    the objects say. `spared`: policies deny it, and the mode of node or namespace lets it pass."""

    node: str
    family: int
    hook: str
    packet: str
    outcome: str
    wanted: str
    steps: list[StepOut]
    drift: str = ""
    spared: bool = False


class LiveOut(Struct, omit_defaults=True):
    walks: list[WalkOut]
    unseen: list[str] = []


class Explanation(Struct, omit_defaults=True):
    """All of it. `verdict` is `mixed` where answers differ. `unseen` is what could not be read."""

    api_version: str
    src: str
    dst: str
    port: str
    verdict: Literal["allowed", "denied", "unknown", "mixed"]
    answers: list[Answer]
    unseen: list[str] = []
    notes: list[str] = []
    fix: FixOut | None = None
    live: LiveOut | None = None


def overall(answers: list[Answer], unseen: list[str]) -> Literal["allowed", "denied", "unknown", "mixed"]:
    """What is true of all; nothing can be where something was not seen."""
    words = {answer.verdict for answer in answers}
    if unseen or "unknown" in words or not words:
        return "unknown"
    # Without a port, some ports may pass and others not.
    partly = any(a.verdict == "allowed" and a.ports not in (None, "every port and protocol") for a in answers)
    if len(words) > 1 or partly:
        return "mixed"
    return words.pop()
