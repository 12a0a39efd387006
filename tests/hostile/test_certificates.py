"""A node's agent, as it runs in a pod, while what it and the API server prove themselves with expires and is renewed:
what is known stays enforced, what is wrong is said, and the same process goes on by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLContext

import pytest

from lab.probe import Probe
from tests.agent.node import AgentProcess, Cluster, cluster_in, until
from tests.api.authority import Authority, Projected, serving, show
from tests.enforcer.shop import API
from tests.enforcer.test_kernel import BACKENDS, OPEN, REJECTED, WorldOf, world

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
__all__ = ["world"]
on_nft = pytest.mark.parametrize("backend", BACKENDS[1:], ids=["nft"])
WEB_TO_API = Probe("shop/web", "shop/api", "TCP", 80)
OTHER_TO_API = Probe("shop/other", "shop/api", "TCP", 80)
NOT_FOLLOWED = "not followed for the moment; what is known stays"
# In a mount namespace of its own, the folder $1 is where a pod has its service account.
IN_POD = """
account=/run/secrets/kubernetes.io/serviceaccount
mount -t tmpfs none /run && mkdir -p $account && mount --bind "$1" $account && shift && exec "$@"
"""


class Place:
    """The cluster of a node, whose API server shows `authority`'s certificate and wants the token `first`."""

    def __init__(self, cluster: Cluster, folder: Path, context: SSLContext, authority: Authority) -> None:
        self.cluster = cluster
        self.context = context
        self.authority, self.other = authority, Authority(folder / "another")
        self._folder = folder
        self.account = Projected(folder / "account", {"token": "first", "ca.crt": authority.pem})
        cluster.server.token = "first"
        cluster.config = ""

    def shows(self, issued: str) -> None:
        """To those who connect from now on."""
        show(self.context, self._folder, issued)

    def agent(self, *environment: str, wait: bool = True) -> AgentProcess:
        """`environment` are assignments."""
        server = ("KUBERNETES_SERVICE_HOST=127.0.0.1", f"KUBERNETES_SERVICE_PORT={self.cluster.server.port}")
        in_pod = ("unshare", "--mount", "sh", "-euc", IN_POD, "sh", str(self.account.folder))
        return self.cluster.agent(wait=wait, under=("env", "-u", "KUBECONFIG", *server, *environment, *in_pod))


@pytest.fixture
def place(world: WorldOf, tmp_path: Path) -> Iterator[Place]:
    authority = Authority(tmp_path / "authority")
    context = serving(tmp_path, authority.issue("server"))
    with cluster_in(world, tmp_path, context) as cluster:
        cluster.apply(API)
        yield Place(cluster, tmp_path, context, authority)


@contextmanager
def nobody_is_followed(cluster: Cluster, agent: AgentProcess, says: str) -> Iterator[None]:
    """Until the end of the block, which mends it, and after which all is followed."""
    told = len(agent.said())

    def all_are_cut() -> bool:
        """Connections from before are as good as ever, those in the pool too."""
        cluster.server.cut_all()
        return agent.metric("podfence_watch_troubled") == 4

    until(all_are_cut, "trouble with all kinds")

    def whys() -> set[str]:
        return {line["kind"] for line in agent.said()[told:] if line["message"] == NOT_FOLLOWED and says in line["why"]}

    until(lambda: len(whys()) == 4, lambda: f"{says} is told for each kind: {agent.said()[told:]}")
    cluster.relabel("web", app="nobody")
    assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED], "what is known is enforced"
    assert agent.get("/readyz") == (200, "ok\n") and agent.get("/healthz")[0] == 200
    assert agent.metric("podfence_stale_seconds") > 0
    yield
    until(lambda: cluster.world.outcomes(WEB_TO_API) == [REJECTED], "what was missed is followed", 60)
    cluster.relabel("web", app="web")
    until(lambda: cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED], "and what comes")
    until(lambda: agent.metric("podfence_watch_troubled") == 0, "no trouble is left", 60)
    assert agent.metric("podfence_stale_seconds") == 0


Broken = tuple[str, Callable[[], object]]  # what is said, and what mends it


def expired(place: Place) -> Broken:
    place.shows(place.authority.issue("server", ends=-1))
    return "certificate has expired", lambda: place.shows(place.authority.issue("server"))


def begins_later(place: Place) -> Broken:
    """As where the clocks of node and API server are apart: it goes on once they agree, and no file changes."""
    place.shows(place.authority.issue("server", begins=6))
    return "certificate is not yet valid", lambda: None


def another_authority(place: Place) -> Broken:
    place.shows(place.other.issue("server"))
    return "certificate verify failed", lambda: place.account.replace({"token": "first", "ca.crt": place.other.pem})


def another_token(place: Place) -> Broken:
    place.cluster.server.token = "second"
    texts = {"token": "second", "ca.crt": place.authority.pem}
    return "401 Unauthorized", lambda: place.account.replace(texts)


@on_nft
@pytest.mark.parametrize("breaks", [expired, begins_later, another_authority, another_token])
def test_an_agent_enforces_what_it_knows_and_goes_on_by_itself(place: Place, breaks: Callable[[Place], Broken]) -> None:
    with place.agent() as agent:
        says, mend = breaks(place)
        with nobody_is_followed(place.cluster, agent, says):
            mend()
        assert not any("Traceback" in str(line) for line in agent.said())


@on_nft
@pytest.mark.parametrize("breaks", [expired, another_token])
def test_an_agent_that_begins_with_what_has_expired_leaves_what_was_enforced(
    place: Place, breaks: Callable[[Place], Broken]
) -> None:
    cluster = place.cluster
    with place.agent():
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
    says, mend = breaks(place)
    with place.agent(wait=False) as agent:
        until(lambda: says in agent.get("/readyz")[1], lambda: f"{says}: {agent.get('/readyz')} {agent.said()}", 60)
        assert agent.get("/readyz")[0] == 503 and agent.get("/healthz")[0] == 200
        assert cluster.world.outcomes(WEB_TO_API, OTHER_TO_API) == [OPEN, REJECTED]
        mend()
        agent.wait_ready()
        assert agent.applied() == [], "nothing had changed"
