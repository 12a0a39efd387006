"""As little as the manifests give: each capability and each permission taken away in turn, and what is said then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lab.probe import Probe
from tests.agent.node import AgentProcess, Cluster, cluster_in, saved, until
from tests.api.server import Talk
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import BACKENDS, OPEN, REJECTED, WorldOf, backends, world

pytestmark = pytest.mark.kernel
__all__ = ["world"]

WEB_TO_API = Probe("shop/web", "shop/api", "TCP", 80)
OTHER_TO_API = Probe("shop/other", "shop/api", "TCP", 80)
MANIFESTS = Path(__file__).parents[2] / "manifests/base"


@pytest.fixture
def cluster(world: WorldOf, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(world, tmp_path) as found:
        yield found


def granted() -> list[str]:
    """The capabilities of the DaemonSet."""
    (daemonset,) = yaml.safe_load_all((MANIFESTS / "daemonset.yaml").read_text())
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    capabilities = container["securityContext"]["capabilities"]
    assert capabilities["drop"] == ["ALL"]
    return [str(name).lower() for name in capabilities["add"]]


def under(capabilities: list[str]) -> tuple[str, ...]:
    """Nothing else, and nothing to gain either."""
    bounded = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return "setpriv", f"--bounding-set={bounded}", "--inh-caps=-all", "--no-new-privs"


@backends
def test_the_capabilities_of_the_daemonset_are_enough(cluster: Cluster) -> None:
    cluster.apply(API)
    with cluster.agent(under=under(granted())) as agent:
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        assert next(line for line in status.splitlines() if line.startswith("CapEff")).endswith("3000")
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        cluster.relabel("web", app="nobody")
        until(lambda: cluster.world.outcomes(WEB_TO_API) == [REJECTED], "changes are followed")
        # Told over NFLOG, which needs one of them too.
        until(lambda: any(line["message"] == "denied" for line in agent.said()), "a denial is told")
        assert not [line for line in agent.said() if line.get("level") in ("warning", "error")]


@backends
@pytest.mark.parametrize("dropped", granted())
def test_without_one_of_them_the_agent_refuses_and_says_so(cluster: Cluster, dropped: str) -> None:
    """And what an earlier agent enforced stays."""
    cluster.apply(API)
    with cluster.agent():
        before = saved(cluster.world)
    left = [name for name in granted() if name != dropped]
    with cluster.agent(wait=False, under=under(left)) as agent:
        code = ended(agent)
        (line,) = agent.said()
        assert code == 5, line
        assert line["message"].startswith("podfence: iptables-")
        assert f"CAP_{dropped.upper()}" in line["message"]
    assert saved(cluster.world) == before
    assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]


def ended(agent: AgentProcess) -> int:
    """Its exit code, 0 where it goes on."""
    ends = time.monotonic() + 15
    while time.monotonic() < ends:
        if (code := agent.process.poll()) is not None:
            return code
        if agent.get("/readyz")[0] == 200:
            return 0
        time.sleep(0.05)
    raise AssertionError(f"neither ready nor ended: {agent.said()}")


def refused(title: str) -> Callable[[Talk], None]:
    return lambda talk: talk.refuse(403, "Forbidden", f"cannot {title}")


@pytest.mark.parametrize("kind", ["nodes", "namespaces", "networkpolicies", "pods"])
@pytest.mark.parametrize("backend", BACKENDS[1:], ids=["nft"])
def test_without_a_verb_on_a_kind_what_was_known_stays(cluster: Cluster, kind: str) -> None:
    """`watch` while the agent follows, then `list` at a start. Each is named, with the kind."""
    cluster.apply(API)
    with cluster.agent() as agent:
        before = saved(cluster.world)
        cluster.server.always[f"watch {kind}"] = refused(f"watch {kind}")
        cluster.server.cut_all()
        until(lambda: agent.metric("podfence_watch_troubled") == 1, "the metric rises")
        until(lambda: says(agent, f"watch {kind}"), "the log names verb and kind")
        assert saved(cluster.world) == before
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        assert agent.get("/healthz")[0] == 200
    cluster.server.always[f"list {kind}"] = refused(f"list {kind}")
    with cluster.agent(wait=False) as agent:
        until(lambda: f"list {kind}" in agent.get("/readyz")[1], "readyz names it")
        assert saved(cluster.world) == before
        cluster.server.always.clear()
        until(lambda: agent.get("/readyz")[0] == 200, "recovery", 60)


def says(agent: AgentProcess, what: str) -> bool:
    return any(what in str(line) for line in agent.said())


@pytest.mark.parametrize("title", ["post events", "patch nodes", "patch status"])
@pytest.mark.parametrize("backend", BACKENDS[1:], ids=["nft"])
def test_without_a_permission_to_report_enforcement_goes_on(cluster: Cluster, title: str) -> None:
    cluster.server.always[title] = refused(title)
    cluster.apply(API)
    with cluster.agent() as agent:
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        cluster.relabel("web", app="nobody")
        until(lambda: cluster.world.outcomes(WEB_TO_API) == [REJECTED], "changes are followed")
        assert agent.get("/readyz")[0] == 200
