"""What a source says of the cluster: messages, as watch threads put them into the agent's inbox.

They say what was seen, not what is to be done: `heard` turns them into changes.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from policy.errors import Problem
from policy.model import Namespace, NetworkPolicy, Node, Pod

Kind = Literal["Namespace", "Pod", "NetworkPolicy", "Node"]


class OwnNode(Struct, frozen=True):
    """The agent's own Node, with what only the agent asks of it. `taints` are keys with effects, in order."""

    node: Node
    uid: str = ""
    annotations: dict[str, str] = {}
    taints: tuple[tuple[str, str], ...] = ()

    @property
    def namespace(self) -> str:
        return ""

    @property
    def name(self) -> str:
        return self.node.name


Object = Namespace | Pod | NetworkPolicy | OwnNode


class Key(Struct, frozen=True, order=True):
    """Which object: `namespace` is "" for Namespaces and Nodes."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Gone(Struct, frozen=True):
    """The object of that key and `uid` is no more; `uid` is "" where it is not known."""

    key: Key
    uid: str = ""


class Finding(Struct, frozen=True):
    """One object of which not all could be read. `key` is None where not even its name could. `kept`: nothing of it
    is used, so that what was known of it before stays."""

    key: Key | None
    problems: tuple[Problem, ...]
    kept: bool


class Listed(Struct, frozen=True):
    """The whole state of one kind at one moment, each object once; of those in `findings` what could be read."""

    kind: Kind
    objects: tuple[Object, ...]
    findings: tuple[Finding, ...] = ()


class Changed(Struct, frozen=True):
    """One object as it is now, or that it is gone; None where nothing of it can be used, which `finding` explains."""

    kind: Kind
    event: Object | Gone | None
    finding: Finding | None = None


class Trouble(Struct, frozen=True):
    """A kind can't be followed at present: what is known of it is as of `since`, by the source's clock, or older.
    `reason` is one line that names verb and kind; `status` the API server's answer, 0 where there was none."""

    kind: Kind
    reason: str
    since: float
    status: int = 0

    @property
    def forbidden(self) -> bool:
        return self.status in (401, 403)


class Recovered(Struct, frozen=True):
    """The kind of an earlier `Trouble` is followed again."""

    kind: Kind


News = Listed | Changed | Trouble | Recovered
