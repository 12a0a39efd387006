"""An API server that flaps, and one that says what was long ago: packets that never stop, and what they meet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import netns
from tests.agent.node import Cluster, cluster_in, until
from tests.api.server import Talk
from tests.cluster.packets import Streams, streams
from tests.enforcer.test_kernel import BACKENDS, WorldOf, world

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
__all__ = ["world"]
on_nft = pytest.mark.parametrize("backend", BACKENDS[1:], ids=["nft"])
KINDS = ("pods", "namespaces", "networkpolicies", "nodes")
ALLOW = """
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: api, namespace: shop},
 spec: {podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}}
"""


@pytest.fixture
def cluster(world: WorldOf, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(world, tmp_path) as found:
        found.apply(ALLOW)
        yield found


def place(cluster: Cluster, key: str) -> tuple[str, Path]:
    """A pod's address, and its network namespace."""
    host = cluster.world.lab.host(key)
    return next(str(each) for each in host.addresses if each.family == 4), netns.FOLDER / host.netns


class Flows:
    """New ones to `shop/api`, of `shop/web` who may and of `shop/other` who may not, every two milliseconds."""

    def __init__(self, cluster: Cluster) -> None:
        (self.web, one), (self.other, two) = (place(cluster, f"shop/{name}") for name in ("web", "other"))
        address, api = place(cluster, "shop/api")
        self._streams = streams({self.web: one, self.other: two}, api, address)

    def __enter__(self) -> Streams:
        self.flows = self._streams.__enter__()
        return self.flows

    def __exit__(self, *error: object) -> None:
        self._streams.__exit__(None, None, None)

    def pass_now(self, sender: str) -> bool:
        """Whether any that was sent within the last tenth of a second arrived."""
        time.sleep(0.15)
        passed = self.flows.passed(sender)
        return bool(passed) and passed[-1] > time.monotonic() - 0.1


def answering(cluster: Cluster, fault: object) -> None:
    cluster.server.always = {f"{verb} {kind}": fault for verb in ("list", "watch") for kind in KINDS}  # type: ignore[misc]


@on_nft
def test_an_api_server_that_flaps_loses_and_opens_nothing(cluster: Cluster) -> None:
    """It comes and goes five times a second, and ends all watches each time."""
    server, before, after = cluster.server, Flows(cluster), Flows(cluster)
    with cluster.agent() as agent:
        asked = len(server.log)
        with before as flows:
            for _ in range(40):
                answering(cluster, Talk.reset)
                server.cut_all()
                time.sleep(0.1)
                server.always = {}
                time.sleep(0.1)
        assert flows.lost(before.web) == [] and flows.arrived(before.other) == 0
        # Four kinds, each of which waits longer each time.
        assert len(server.log) - asked < 150
        assert agent.get("/readyz")[0] == 200
        with after as flows:
            cluster.relabel("web", app="nobody")
            until(lambda: not after.pass_now(after.web), "what is said in the end is followed", 60)
            cluster.relabel("web", app="web")
            until(lambda: after.pass_now(after.web), "and what is said then", 60)
        assert flows.arrived(after.other) == 0
        assert not any("Traceback" in str(line) for line in agent.said())


@on_nft
def test_an_old_backup_is_followed_and_a_pod_that_it_does_not_know_is_closed(cluster: Cluster) -> None:
    """Since it was made the policy was deleted, and a pod came: one is in force again, the other is a stranger."""
    server, history, flows = cluster.server, cluster.history, Flows(cluster)
    web = cluster.tree("Pod", "shop", "web")
    cluster.delete("Pod", "shop", "web")
    backup = history.saved()
    cluster.put(web)
    cluster.delete("NetworkPolicy", "shop", "api")
    newest = backup[0]

    def too_large(talk: Talk) -> None:
        number = history.number_of(talk.query.get("resourceVersion", ""))
        if number is not None and number > newest:
            talk.refuse(504, "Timeout", "Too large resource version", "ResourceVersionTooLarge")
        else:
            talk.answer()

    with cluster.agent() as agent, flows:
        until(lambda: flows.pass_now(flows.web) and flows.pass_now(flows.other), "no policy")
        answering(cluster, Talk.reset)
        history.restore(backup)
        server.cut_all()
        until(lambda: agent.metric("podfence_watch_troubled") == 4, "trouble")
        assert flows.pass_now(flows.web) and flows.pass_now(flows.other), "what is known stays"
        answering(cluster, too_large)
        until(lambda: not (flows.pass_now(flows.web) or flows.pass_now(flows.other)), "the backup", 60)
        until(lambda: agent.metric("podfence_watch_troubled") == 0, "no trouble", 60)
        # Whoever has the address now: it is no pod that anybody knows.
        assert not flows.pass_now(flows.web)
        server.always = {}
        cluster.put(web)
        until(lambda: flows.pass_now(flows.web), "the pod is said again", 60)
        assert not flows.pass_now(flows.other)
        assert agent.get("/readyz")[0] == 200
