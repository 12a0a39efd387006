"""The agents of a cluster, reached from a laptop through the API server: `pods/exec` into each, with our own rights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from msgspec import Struct

from policy.errors import ApiUnconfigured, HostRefused

NAMESPACE, LABEL = "podfence-system", "app.kubernetes.io/name=podfence"
_AT_ONCE = 16
_SECONDS = 10
# Of one answer: on a busy node the start of a program alone takes some of it.
_PATIENCE = 30.0


class Agent(Struct, frozen=True):
    """One agent's pod, and the node that it acts for."""

    node: str
    pod: str
    running: bool


class Answer(Struct, frozen=True):
    """What an agent said; or `error`, in one line."""

    agent: Agent
    said: bytes = b""
    error: str = ""


class Agents:
    """Reaches them as the kubeconfig's user. HostRefused where the API server can't be reached or forbids it."""

    def __init__(self, kubeconfig: str | None, context: str | None, namespace: str) -> None:
        from kubernetes import client

        from enforcer.cluster.api_config import configured

        self.namespace = namespace
        try:
            configuration = configured(kubeconfig, context)
        except ApiUnconfigured as error:
            raise HostRefused(f"no cluster to ask: {error}") from None
        self._core = client.CoreV1Api(client.ApiClient(configuration))

    def find(self) -> list[Agent]:
        try:
            found = self._core.list_namespaced_pod(self.namespace, label_selector=LABEL, _request_timeout=_SECONDS)
        except Exception as error:
            raise HostRefused(f"list pods in {self.namespace}: {_in_a_line(error)}") from None
        agents = (Agent(p.spec.node_name or "", p.metadata.name, p.status.phase == "Running") for p in found.items)
        return sorted(agents, key=lambda agent: agent.node)

    def ask(self, agents: Sequence[Agent], argv: Sequence[str]) -> Iterable[Answer]:
        """What `argv` prints in each of the agents' containers, in their order."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(lambda agent: self._ask(agent, argv), agents)

    def _ask(self, agent: Agent, argv: Sequence[str]) -> Answer:
        from kubernetes import client
        from kubernetes.stream import stream

        if not agent.running:
            return Answer(agent, error="its pod is not running")
        try:
            # A client of its own: `stream` changes the one that it is given, for as long as the call takes.
            core = client.CoreV1Api(client.ApiClient(self._core.api_client.configuration))
            spoken: Callable[..., Any] = core.connect_get_namespaced_pod_exec
            session = stream(
                spoken, agent.pod, self.namespace, command=[*argv], stdout=True, stderr=True, stdin=False, tty=False,
                _preload_content=False,
            )  # fmt: skip
            session.run_forever(timeout=_PATIENCE)
            if session.is_open():
                session.close()
                return Answer(agent, error=f"exec: no whole answer within {_PATIENCE:g} s")
            said, complaint, code = session.read_stdout(0), session.read_stderr(0), session.returncode
        except Exception as error:
            return Answer(agent, error=f"exec: {_in_a_line(error)}")
        if code and not said:
            return Answer(
                agent, error=" ".join(complaint.split()).removeprefix("podfence: ") or f"it ended with {code}"
            )
        return Answer(agent, said.encode())


def reached(kubeconfig: str | None, context: str | None, namespace: str) -> Agents | HostRefused:
    """For those to whom not reaching them is an answer."""
    try:
        return Agents(kubeconfig, context, namespace)
    except HostRefused as error:
        return error


def decoded(answer: Answer) -> dict[str, Any] | str:
    """The JSON object that was said, or what is wrong, in a line."""
    if answer.error:
        return answer.error
    try:
        return msgspec.json.decode(answer.said, type=dict[str, Any])
    except msgspec.DecodeError as error:
        return f"not understood: {error}"


def _in_a_line(error: Exception) -> str:
    # A refused WebSocket says its headers too, behind a sign of its own.
    reason = str(getattr(error, "reason", "") or error).partition(" -+-+- ")[0]
    return " ".join(reason.split())[:300]
