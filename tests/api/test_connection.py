"""The way to the API server: who we are to it, and what is said where it can't be reached."""

from __future__ import annotations

import json
import ssl
import threading
from pathlib import Path

import pytest

from enforcer.cluster.api import MERGE_PATCH, Api
from enforcer.cluster.api_config import connect
from enforcer.cluster.pace import Pace
from policy.errors import ApiRefused, ApiUnconfigured, ApiUnreachable, PodfenceError
from tests.api.follow import Follower, kubeconfig
from tests.api.history import PODS, History, pod, small_cluster
from tests.api.server import Server, Talk

CERTS = Path(__file__).parent / "certs"


def context(which: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(CERTS / f"{which}.pem", CERTS / f"{which}.key")
    return made


def in_pod(folder: Path, server: Server, token: str) -> Api:
    """As a pod's service account has it."""
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_text((CERTS / "ca.pem").read_text())
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    return connect(service_account=folder, environment=environment)


def test_a_service_accounts_token_is_read_again_when_it_has_expired(tmp_path: Path) -> None:
    with Server(small_cluster(), context("server-1")) as server:
        server.token = "first"
        api = in_pod(tmp_path, server, "first\n")
        assert b"PodList" in api.get("pods", PODS)
        server.token = "second"
        (tmp_path / "token").write_text("second")
        assert b"PodList" in api.get("pods", PODS)
        assert [talk.headers["authorization"] for talk in server.log] == [
            "bearer first",
            "bearer first",
            "bearer second",
        ]
        server.token = "third"
        with pytest.raises(ApiRefused, match=r"^list pods: 401 Unauthorized: Unauthorized$"):
            api.get("pods", PODS, verb="list")
        assert len(server.log) == 5, "once more, and no more"


def test_a_watch_goes_on_with_the_next_token(tmp_path: Path) -> None:
    with Server(small_cluster(), context("server-1")) as server:
        server.token = "first"
        with Follower(server, tmp_path, api=in_pod(tmp_path, server, "first")) as follower:
            follower.settle()
            (tmp_path / "token").write_text("second")
            server.token = "second"
            server.cut_all()
            server.history.put(PODS, pod("a", "later", "x"))
            follower.settle()
            assert server.requests["list pods"] == 3
            assert not any(trouble.forbidden for trouble in follower.heard.troubles.values())


def test_threads_that_are_refused_together_read_the_configuration_once(tmp_path: Path) -> None:
    with Server(small_cluster()) as server:
        runs = tmp_path / "runs"
        command = _plugin(tmp_path, runs)
        server.token = "run-1"
        api = connect(kubeconfig(tmp_path, server, {"exec": command}))
        assert b"PodList" in api.get("pods", PODS)
        server.token = "run-2"
        got: list[bytes] = []
        threads = [threading.Thread(target=lambda: got.append(api.get("pods", PODS))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 4
        assert len(runs.read_text().splitlines()) == 2


def _plugin(folder: Path, runs: Path) -> dict[str, object]:
    """An exec plugin whose token counts its runs."""
    script = folder / "plugin.sh"
    version = "client.authentication.k8s.io/v1"
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": "run-'$(wc -l < RUNS)'"}}
    text = json.dumps(answer).replace("RUNS", str(runs))
    script.write_text(f"#!/bin/sh\necho run >> {runs}\necho '{text}'\n")
    script.chmod(0o755)
    return {"apiVersion": version, "command": str(script), "interactiveMode": "Never"}


def test_a_renewed_certificate_of_the_same_authority_is_good(tmp_path: Path) -> None:
    history = small_cluster()
    with Server(history, context("server-1")) as server:
        api = connect(kubeconfig(tmp_path, server, **{"certificate-authority": str(CERTS / "ca.pem")}))
        follower = Follower(server, tmp_path, api=api)
        with follower:
            follower.settle()
            port = server.port
            server.__exit__()
            with Server(history, context("server-2"), port) as renewed:
                history.put(PODS, pod("a", "later", "x"))
                follower.server = renewed
                follower.settle()
                assert renewed.requests["list pods"] == 0, "it goes on where it was"


def test_a_certificate_of_another_authority_is_not(tmp_path: Path) -> None:
    with Server(small_cluster(), context("stranger")) as server:
        api = connect(kubeconfig(tmp_path, server, **{"certificate-authority": str(CERTS / "ca.pem")}))
        with pytest.raises(ApiUnreachable, match=r"^list pods: TLS: .*CERTIFICATE_VERIFY_FAILED") as caught:
            api.get("pods", PODS, verb="list")
        assert "\n" not in str(caught.value)
        assert not server.log


def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    mutual = context("server-1")
    mutual.verify_mode = ssl.CERT_REQUIRED
    mutual.load_verify_locations(CERTS / "ca.pem")
    with Server(small_cluster(), mutual) as server:
        authority = {"certificate-authority": str(CERTS / "ca.pem")}
        with pytest.raises(ApiUnreachable):
            connect(kubeconfig(tmp_path, server, **authority)).get("pods", PODS)
        user = {"client-certificate": str(CERTS / "server-2.pem"), "client-key": str(CERTS / "server-2.key")}
        assert b"PodList" in connect(kubeconfig(tmp_path, server, user, **authority)).get("pods", PODS)


def test_proxies_are_used_but_not_for_those_that_need_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(small_cluster()) as proxy, Server(History()) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        path = kubeconfig(tmp_path, server)
        assert b'"p0"' in connect(path).get("pods", PODS)
        assert (len(proxy.log), len(server.log)) == (1, 0)
        assert proxy.log[0].target == f"{server.url}{PODS}"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert b'"p0"' not in connect(path).get("pods", PODS)
        assert (len(proxy.log), len(server.log)) == (1, 1)


def test_contexts(tmp_path: Path) -> None:
    with Server(small_cluster()) as server:
        path = kubeconfig(tmp_path, server)
        assert b"PodList" in connect(path, "here").get("pods", PODS)
        with pytest.raises(ApiUnconfigured, match="elsewhere") as caught:
            connect(path, "elsewhere")
        assert caught.value.exit_code == 5


@pytest.mark.parametrize("text", ["", "{", "- 1\n- 2", "clusters: 7", '{"current-context": "x"}'])
def test_a_kubeconfig_that_makes_no_sense_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(PodfenceError) as caught:
        connect(str(path))
    assert "\n" not in str(caught.value)


def test_no_service_account_is_one_line(tmp_path: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    with pytest.raises(ApiUnconfigured, match=r"^the API server can't be found: Service token file does not exist"):
        connect(service_account=tmp_path, environment=environment)


def test_changes_are_sent_as_they_are(tmp_path: Path) -> None:
    with Server(small_cluster()) as server:
        api = connect(kubeconfig(tmp_path, server))
        body = b'{"metadata":{"annotations":{"a":"b"}}}'
        assert api.send("patch", "nodes/n1", "PATCH", "/api/v1/nodes/n1", body, MERGE_PATCH) == body
        assert api.send("create", "events", "POST", "/api/v1/namespaces/a/events", b"{}") == b"{}"
        assert api.send("delete", "pods/p", "DELETE", "/api/v1/namespaces/a/pods/p") == b"{}"
        told = [(talk.method, talk.path, talk.body, talk.headers.get("content-type")) for talk in server.log]
        assert told == [
            ("PATCH", "/api/v1/nodes/n1", body, MERGE_PATCH),
            ("POST", "/api/v1/namespaces/a/events", b"{}", "application/json"),
            ("DELETE", "/api/v1/namespaces/a/pods/p", b"", None),
        ]
        assert {talk.headers["user-agent"] for talk in server.log} == {"podfence"}
        assert server.connections == 1


def test_a_refused_change_is_one_line_and_not_sent_again(tmp_path: Path) -> None:
    with Server(small_cluster()) as server:
        server.faults["patch n1"].append(
            lambda talk: talk.refuse(409, "Conflict", "it was\nchanged\x1b[31m", Retry_After="7")
        )
        api = connect(kubeconfig(tmp_path, server))
        with pytest.raises(ApiRefused) as caught:
            api.send("patch", "nodes/n1", "PATCH", "/api/v1/nodes/n1", b"{}")
        assert str(caught.value) == r"patch nodes/n1: 409 Whatever: it was changed\x1b[31m"
        assert (caught.value.status, caught.value.retry_after) == (409, 7)
        assert len(server.log) == 1


def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    def drips(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            talk.send(b"x")
            talk.server.stopping.wait(0.05)

    with Server(small_cluster()) as server:
        api = connect(kubeconfig(tmp_path, server), read_timeout=0.2, answer_timeout=0.4)
        server.faults["list pods"].extend([lambda talk: talk.hang(5), drips])
        with pytest.raises(ApiUnreachable, match=r"^list pods: nothing heard for 0.2 s$"):
            api.get("pods", PODS, verb="list")
        with pytest.raises(ApiUnreachable, match=r"^list pods: no whole answer within 0.4 s$"):
            api.get("pods", PODS, verb="list")


def test_long_answers_come_compressed_but_where_that_is_not_wanted(tmp_path: Path) -> None:
    with Server(small_cluster(500)) as server:
        plain = connect(kubeconfig(tmp_path, server), compress=False).get("pods", PODS)
        assert server.sent > len(plain)
        sent = server.sent
        assert connect(kubeconfig(tmp_path, server)).get("pods", PODS) == plain
        assert server.sent - sent < len(plain) / 5


def test_connections_that_are_silent_are_probed(tmp_path: Path) -> None:
    with Server(small_cluster()) as server:
        api = connect(kubeconfig(tmp_path, server))
        options = api._configuration.socket_options
        import socket

        with socket.create_connection(("127.0.0.1", server.port)) as probe:
            for level, option, value in options:
                probe.setsockopt(level, option, value)
                assert probe.getsockopt(level, option) == value
        assert (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1) in options


def test_a_kind_needs_one_connection_for_all_of_its_pages_and_its_watch(tmp_path: Path) -> None:
    with Server(small_cluster(900)) as server:
        with Follower(server, tmp_path, Pace(page=450)) as follower:
            follower.settle()
            follower.until(lambda: server.requests["watch pods"] == 1)
        assert server.requests["list pods"] == 2
        assert server.connections <= 4
        assert server.sent < 200_000, "compressed"
