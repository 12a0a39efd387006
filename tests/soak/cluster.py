"""Three nodes, an API server on the loopback of each, and their agents; what changes goes through here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from enforcer.agent.serve_local import ask
from enforcer.kernel.backend import Backend, Mode
from lab.cluster import Lab
from lab.topology import OUTSIDE, OUTSIDE_ADDRESSES, Attach
from podfence.lab_objects import api_objects
from policy.decode import decode_objects, read_documents
from policy.errors import HostRefused
from policy.model import Pod
from tests.agent.node import AgentProcess
from tests.api.follow import kubeconfig
from tests.api.history import NAMESPACES, NODES, PODS, POLICIES, History
from tests.api.server import Server
from tests.enforcer.test_kernel import World
from tests.oracle.fields import Object
from tests.soak.judge import Judge
from tests.soak.probes import Probes
from tests.soak.station import Station
from tests.soak.timeline import Change, Timeline

MODES: dict[str, Mode] = {"n1": "nft", "n2": "legacy", "n3": "nft"}
PATHS = {"Pod": PODS, "NetworkPolicy": POLICIES, "Namespace": NAMESPACES}
FAMILIES = (4, 6)
_GIVE_UP = 60.0
_NOTICED = 0.1  # seconds after which a watch has noticed that it was cut
_HISTORY = 300  # events that can still be watched from
_NODE = """
{{apiVersion: v1, kind: Node, metadata: {{name: n{0}}}, spec: {{podCIDRs: [10.244.{0}.0/24, "fd00:10:244:{0}::/64"]}}}}
"""
Key = tuple[str, str]
Saved = tuple[Any, dict[str, dict[Key, Object]], dict[str, Key]]


class Agents:
    """The agent of one node: a process that is killed, ended, and started again. `said` is all that its logs say."""

    def __init__(self, lab: Lab, node: str, folder: Path, config: str) -> None:
        self.node = node
        self.folder = folder
        self.config = config
        self.backend = Backend(MODES[node], FAMILIES)
        self.world = World(lab, self.backend)
        self.starts = 0
        self.process: AgentProcess | None = None

    def start(self) -> None:
        self.starts += 1
        self.process = AgentProcess(self.world, self.node, self.folder, self.config, wait=False)

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.process.pid

    @property
    def lock(self) -> Path:
        return self.folder / "xtables.lock"

    def check(self) -> None:
        """RuntimeError where it ended by itself."""
        if self.process and (code := self.process.process.poll()) is not None:
            raise RuntimeError(f"the agent of {self.node} ended by itself with {code}: {self.tail()}")

    def programmed(self, kind: str, key: Key) -> bool:
        question = {"ask": "programmed", "kind": kind, "namespace": key[0], "name": key[1]}
        try:
            return any(answer["programmed"] for answer in ask(str(self.folder / "state"), question))
        except HostRefused:
            return False

    @property
    def told(self) -> int:
        """How much its present log holds."""
        return self.process.log.stat().st_size if self.process else 0

    def count(self, text: bytes, since: int) -> int:
        """How often its log has said `text` since it was so long."""
        if self.process is None:
            return 0
        with self.process.log.open("rb") as log:
            log.seek(since)
            return log.read().count(text)

    def tail(self, lines: int = 15) -> str:
        logs = sorted(self.folder.glob("agent-*.log"), key=lambda path: path.stat().st_mtime)[-2:]
        told = [line for path in logs for line in path.read_text(errors="replace").splitlines()]
        return "\n".join([line for line in told if '"denied"' not in line][-lines:])

    def run(self, *argv: str, stdin: str = "") -> str:
        """A program on the node, as somebody else would: iptables stands for the node's backend."""
        program = argv[0].replace("tables", f"tables-{self.backend.mode}")
        words = ["env", f"XTABLES_LOCKFILE={self.lock}", program, *argv[1:]]
        return self.world.lab.run(self.node, words, stdin).stdout


class SoakCluster:
    """`objects` is what the API server has, by kind and key. `change` is the one way to change it."""

    def __init__(self, lab: Lab, folder: Path, stack: ExitStack) -> None:
        self.lab = lab
        self.history = History()
        self.servers: dict[str, Server] = {}
        self.agents: dict[str, Agents] = {}
        self.objects: dict[str, dict[Key, Object]] = {kind: {} for kind in PATHS}
        self.timeline = Timeline({(kind, 0): [] for kind in PATHS})
        fixed = api_objects(lab.cluster)["items"]
        self.judge = Judge(self.timeline, fixed, {})
        self.pending: list[Change] = []
        self._new: set[Key] = set()  # pods that pending changes add
        self._barriers: dict[str, Key] = {}
        self._barrier = 0
        self._slack = 0.0  # what faults add to the bound of transitions
        for tree in fixed:
            self.history.put(NODES, {key: tree[key] for key in tree if key not in ("kind", "apiVersion")})
        for node in MODES:
            with lab.inside(node):
                self.servers[node] = stack.enter_context(Server(self.history))
            place = folder / node
            place.mkdir()
            self.agents[node] = Agents(lab, node, place, kubeconfig(place, self.servers[node]))

    def change(
        self, what: str, puts: Sequence[Object] = (), deletes: Sequence[tuple[str, Key]] = (), wait: bool = True
    ) -> None:
        """Sends it, then waits until every agent has it, unless that is to be done by `settle` later. Where probes are
        on their way it is of one object: between two there is a state of its own."""
        kinds = sorted({each["kind"] for each in puts} | {kind for kind, _ in deletes})
        self._new |= {_key(each) for each in puts if each["kind"] == "Pod" and _key(each) not in self.objects["Pod"]}
        for each in puts:
            self.objects[each["kind"]][_key(each)] = each
        for kind, key in deletes:
            del self.objects[kind][key]
        new = {kind: list(self.objects[kind].values()) for kind in kinds}
        self.pending.append(self.timeline.begin(what, time.monotonic(), self._slack, new))
        for each in puts:
            self._put(each)
        for kind, key in deletes:
            self.history.delete(PATHS[kind], key)
        for kind in kinds:
            self._put_barrier(kind)
        if wait:
            self.settle()

    def settle_all(self, what: str) -> None:
        """Every kind is followed, whether anything of it changed or not. Twice: a watch that was cut may bring the
        news of the first time before it notices."""
        for _ in range(2):
            self.pending.append(self.timeline.begin(what, time.monotonic(), self._slack, {}, frozenset(PATHS)))
            self.send_barriers()
            self.settle()
            time.sleep(_NOTICED)

    def settle(self) -> None:
        """Every agent has everything. RuntimeError where that is not to be."""
        if not self.pending:
            return
        deadline = time.monotonic() + _GIVE_UP
        kinds = {kind for change in self.pending for kind in change.kinds}
        left = [(agent, kind, self._barriers[kind]) for agent in self.agents.values() for kind in kinds]
        # A new pod may be known, and closed for the moment since its interface is not.
        pods = self.objects["Pod"]
        left += [(self.agents[pods[key]["spec"]["nodeName"]], "Pod", key) for key in self._new if key in pods]
        while left:
            agent, kind, key = left[-1]
            if agent.programmed(kind, key):
                left.pop()
                continue
            agent.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{agent.node} has not {self.pending[0].what} after {_GIVE_UP:g} s: {agent.tail()}")
            time.sleep(0.004)
        self.timeline.finish(self.pending, time.monotonic())
        self.pending, self._new = [], set()
        self._trim()

    @contextmanager
    def slower(self, seconds: float) -> Iterator[None]:
        """Transitions that begin meanwhile, and those under way, may take so much longer."""
        self._slack += seconds
        for each in self.pending:
            each.slack += seconds
        try:
            yield
        finally:
            self._slack -= seconds

    def _put(self, tree: Object) -> None:
        self.history.put(PATHS[tree["kind"]], {key: tree[key] for key in tree if key not in ("kind", "apiVersion")})

    def _put_barrier(self, kind: str) -> None:
        """An object that decides nothing, sent after what is waited for: once an agent has it, it has all before it."""
        self._barrier += 1
        key = ("", f"barrier-{self._barrier}") if kind == "Namespace" else ("barriers", f"barrier-{self._barrier}")
        meta = {"name": key[1], "labels": {}, **({"namespace": key[0]} if key[0] else {})}
        spec: dict[str, Any] = {"NetworkPolicy": {"podSelector": {}}, "Pod": {"nodeName": "elsewhere"}}.get(kind, {})
        tree = {"kind": kind, "metadata": meta, "spec": spec}
        self._put(tree if kind != "Pod" else {**tree, "status": {"phase": "Pending"}})
        before = self._barriers.get(kind)
        if before in self.history.objects[PATHS[kind]]:
            self.history.delete(PATHS[kind], before)
        self._barriers[kind] = key

    def _trim(self) -> None:
        history = self.history
        with history.changed:
            if len(history.past) > 2 * _HISTORY:
                del history.past[:-_HISTORY]
                history.oldest = history.past[0].number - 1
        for server in self.servers.values():
            server.log.clear()

    def saved(self) -> Saved:
        return self.history.saved(), {kind: dict(found) for kind, found in self.objects.items()}, dict(self._barriers)

    def restore(self, what: str, saved: Saved) -> None:
        """The API server's data is that of an earlier time, as after a backup was read in. What is waited for is to be
        sent once agents have noticed, by `send_barriers`."""
        backup, objects, self._barriers = saved
        self.objects = {kind: dict(found) for kind, found in objects.items()}
        new = {kind: list(found.values()) for kind, found in self.objects.items()}
        self.pending.append(self.timeline.begin(what, time.monotonic(), self._slack, new))
        self.history.restore(backup)

    def send_barriers(self) -> None:
        for kind in PATHS:
            self._put_barrier(kind)


def _key(tree: Object) -> Key:
    return tree["metadata"].get("namespace", ""), tree["metadata"]["name"]


def model_of(tree: Object) -> Pod:
    return decode_objects([json.loads(json.dumps(tree))]).cluster.pods[0]


@contextmanager
def soak_lab(name: str, attach: Attach) -> Iterator[Lab]:
    nodes = "---".join(_NODE.format(number) for number in range(1, len(MODES) + 1))
    with Lab(name, read_documents(nodes.encode(), "soak").cluster, attach=attach) as lab:
        for node in MODES:
            with lab.inside(node):
                # Source ports come around; flows that nobody answered have to be forgotten by then.
                Path("/proc/sys/net/netfilter/nf_conntrack_udp_timeout").write_text("5")
        yield lab


def add_fixed_stations(lab: Lab, probes: Probes) -> None:
    places = {node.name: [str(address) for address in node.addresses] for node in lab.cluster.nodes}
    places[OUTSIDE] = [str(address) for address in OUTSIDE_ADDRESSES]
    for place, addresses in places.items():
        probes.add(Station(lab, place, addresses))
