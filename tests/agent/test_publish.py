"""What is published of the loop: who is told that policies hold, and of what is closed."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from enforcer.agent import publish
from enforcer.agent.board import AgentStatus, Board
from enforcer.agent.metrics import Metrics
from enforcer.agent.opening import close_node, open_node
from enforcer.agent.programmed import Programmed, holds
from enforcer.agent.publish import Publisher
from enforcer.agent.report import Reporter
from enforcer.attachment.cni_cache import AddressGone, Unreadable
from enforcer.connections.ender import Counts
from enforcer.connections.remembered import Memory
from podfence.status import agent_text
from policy.cidr import parse_address
from policy.errors import HostRefused
from policy.model import Namespace, NetworkPolicy, Pod
from policy.selector import EVERYTHING
from tests.agent.test_quarantine import BAD
from tests.agent.test_report import FakeApi
from tests.agent.world import World
from tests.compiler.test_budget import overlapping, policy
from tests.enforcer.test_keep import FAMILIES

WEB, NEW = (
    Pod("shop", name, {"app": name}, uid=f"u-{name}", node="n1", addresses=(parse_address(at),), phase="Running")
    for name, at in (("web", "10.1.0.1"), ("new", "10.1.0.2"))
)
WEB, NEW = replace(WEB, gated=True), replace(NEW, gated=True)


class Flows:
    counts = Counts()


class Told:
    """A world with a publisher, of which a reporter hears that never says anything."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = str(tmp)
        self.world = World("n1", tmp, pods=[WEB, NEW])
        self.board = Board(AgentStatus(version="0", node="n1", backend="nft", mode="enforce"))
        self.metrics = Metrics(lambda: self.board.status, list)
        self.reporter = Reporter(FakeApi(), "n1", True, lambda: "now", lambda _: None)
        self.memory = Memory(tmp / "flows")
        self.publisher = Publisher(
            self.board,
            self.metrics,
            self.reporter,
            Programmed(self.tmp),
            self.memory,
            Flows(),  # type: ignore[arg-type]
            FAMILIES,
            lambda: self.world.now,
        )
        self.world.notes.turned = self.publisher.turned  # type: ignore[method-assign]

    def turn(self) -> None:
        self.world.turn(2)

    @property
    def gates(self) -> set[str]:
        return {gate.name for gate in self.reporter._gates}

    @property
    def events(self) -> set[tuple[str, str]]:
        return {(event.reason, event.about.name) for event in self.reporter._events}

    def page(self) -> str:
        return self.metrics.page("text/plain")[0].decode()


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def test_the_next_agent_can_read_which_interfaces_pods_had(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after each change; a full disk is said once, and what follows is written when there is room again."""
    said: list[str] = []
    monkeypatch.setattr(publish.log, "warning", lambda message, **_: said.append(message))
    told.world.list([Namespace("shop", {}), WEB])
    told.turn()
    written = told.memory.load_interfaces()
    assert written == told.world.knowledge.leaving.last and written.keys() == {(WEB.key, WEB.uid)}

    def full(_: object) -> None:
        raise HostRefused("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(told.memory, "save_interfaces", full)
        told.world.say(NEW)
        told.turn()
        told.turn()
    assert sum("next agent" in message for message in said) == 1 and told.memory.load_interfaces() == written
    told.turn()
    assert told.memory.load_interfaces().keys() == {(WEB.key, WEB.uid), (NEW.key, NEW.uid)}


def test_on_an_opened_node_no_pod_is_newly_said_to_have_its_policies(told: Told) -> None:
    told.world.list([Namespace("shop", {}), WEB])
    told.turn()
    assert told.gates == {"web"} and holds(told.tmp, "u-web")
    open_node(told.tmp, "drill")
    told.world.say(NEW)
    told.turn()
    assert told.world.empty and told.board.status.opened
    assert told.gates == {"web"} and holds(told.tmp, "u-web") and not holds(told.tmp, "u-new")
    close_node(told.tmp)
    told.turn()
    assert told.gates == {"web", "new"} and holds(told.tmp, "u-new")


def test_a_node_that_starts_open_keeps_its_taint(told: Told) -> None:
    open_node(told.tmp, "drill")
    told.world.list([Namespace("shop", {}), WEB])
    told.turn()
    assert told.world.loop.followed and not told.reporter._taint and told.gates == set()
    close_node(told.tmp)
    told.turn()
    assert told.reporter._taint and told.gates == {"web"}


def test_on_an_opened_node_nobody_is_audited(told: Told) -> None:
    told.world.list([Namespace("shop", {"podfence.io/mode": "audit"}), WEB])
    told.turn()
    assert told.board.status.audited == 1
    open_node(told.tmp, "drill")
    told.turn()
    assert told.board.status.audited == 0


def test_what_is_closed_by_a_defect_or_the_budget_is_named(told: Told) -> None:
    told.world.list([Namespace("shop", {}), replace(WEB, labels={"app": "api"})])
    told.turn()
    told.world.say(policy("large", overlapping(1000)))
    told.world.say(BAD)
    told.turn()
    status = told.board.status
    assert status.too_large == ("shop/large",) and status.quarantined == ("NetworkPolicy shop/bad",)
    assert {("TooLarge", "large"), ("Quarantined", "bad")} <= told.events
    page = told.page()
    assert "podfence_policies_too_large 1.0" in page and "podfence_quarantined_objects 1.0" in page


def test_a_defect_is_counted_and_its_trace_told_once_a_minute(told: Told, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        told.publisher.stumbled(ValueError("oh"))
    assert told.board.status.defects == 3 and "podfence_defects_total 3.0" in told.page()
    assert told.board.status.last_error == "ValueError: oh"


def test_links_that_cannot_be_read_and_cni_results_are_told(told: Told) -> None:
    told.publisher.links_fail = lambda: "interfaces and routes can't be read: no buffer"
    told.world.list([Namespace("shop", {}), NetworkPolicy("shop", "p", EVERYTHING, ("ingress",)), WEB])
    told.world.inbox.put(Unreadable("result", "not JSON"))
    told.turn()
    assert told.board.status.troubles == {"links": "interfaces and routes can't be read: no buffer"}
    assert told.board.status.problems == ("CNI result result: not JSON",)
    told.world.inbox.put(AddressGone("result"))
    told.turn()
    assert told.board.status.problems == ()


def test_the_status_line_names_what_is_closed() -> None:
    status = AgentStatus(version="0", node="n1", backend="nft", mode="enforce", waits_for=())
    said = replace(status, quarantined=("Pod shop/api",), too_large=("shop/large",))
    assert agent_text(to_builtins(said)).endswith("; closed: Pod shop/api, NetworkPolicy shop/large (too large)")
    assert "closed" not in agent_text(to_builtins(status))
