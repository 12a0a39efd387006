"""Completion with the names of a cluster, where no file is on the line: which lists it reads, and its silence."""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podfence.complete_cluster import SECONDS
from podfence.kubectl import complete
from tests.cli.api_server import Server, serving
from tests.cli.test_completion import EXAMPLE, HOSTILE, completions
from tests.semantics.world import pod, policy, space

_WEB = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f8", "uid": "u", "controller": True}
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def named(kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}}


def replica(key: str) -> dict[str, Any]:
    """A pod of the Deployment web."""
    made = pod(key, ["10.1.0.5"], **{"pod-template-hash": "5d4f8"})
    made["metadata"]["ownerReferences"] = [_WEB]
    return made


OBJECTS = [
    *(space(name) for name in ("default", "shop", "data")),
    replica("shop/web-5d4f8-a"),
    pod("shop/db", ["10.1.0.6"]),
    pod("data/store", ["10.1.0.7"]),
    named("Service", "api", "shop"),
    named("Node", "n1"),
    policy("{podSelector: {}}", "shop/closed"),
    policy("{podSelector: {}}", "data/open"),
]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server([*OBJECTS])) as made:
        yield made


@pytest.fixture
def config(server: Server, tmp_path: Path) -> Path:
    return server.kubeconfig(tmp_path)


OF_DEFAULT = {"namespaces", "pods of default", "services of default"}
OF_SHOP = {"pods of shop", "services of shop"}
IN_SHOP = ["shop/db", "shop/deploy/web", "shop/svc/api", "shop/web-5d4f8-a", ":4"]


@pytest.fixture
def asked(server: Server, config: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Completes in this process, which is quicker: what is offered, and the lists that were read for it."""

    def ask(command: str, *words: str) -> tuple[list[str], set[str]]:
        server.asked.clear()
        assert complete([command, "--kubeconfig", str(config), *words]) == 0
        parts = [path.split("/") for path in server.asked]
        lists = {f"{each[-1]} of {each[-2]}" if "namespaces" in each[:-1] else each[-1] for each in parts}
        return capsys.readouterr().out.splitlines(), lists

    yield ask
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("words", "found", "lists"),
    [
        (("explain", ""), ["data/", "default/", "internet", "node/", "shop/", ":6"], OF_DEFAULT),
        (("explain", "shop/"), IN_SHOP, OF_SHOP),
        (("explain", "shop/svc/"), ["shop/svc/api", ":4"], {"services of shop"}),
        (("explain", "shop/deploy/"), ["shop/deploy/web", ":4"], {"pods of shop"}),
        (("explain", "-n", "shop", "deploy/"), ["deploy/web", ":4"], {"pods of shop"}),
        (("explain", "-n", "shop", "svc/"), ["svc/api", ":4"], {"services of shop"}),
        (("explain", "-n", "shop", "d"), ["data/", "db", "default/", "deploy/web", ":6"], {"namespaces", *OF_SHOP}),
        (("explain", "node/"), ["node/n1", ":4"], {"nodes"}),
        # What leads further and is alone is followed: a shell would put a blank behind it.
        (("reach", "--from", "sh"), IN_SHOP, {*OF_DEFAULT, *OF_SHOP}),
        (("matrix", "--without", ""), ["data/", "default/", "shop/", ":6"], {"namespaces"}),
        (("lint", "--without", "shop/"), ["shop/netpol/closed", ":4"], {"networkpolicies of shop"}),
        (("test", "cases.yaml", "-n", "d"), ["data", "default", ":4"], {"namespaces"}),
        (("status", "-n", "sh"), ["shop", ":4"], {"namespaces"}),
        (("explain", "a", "b", "--live", "--node", ""), ["n1", ":4"], {"nodes"}),
        (("explain", "../"), [":4"], set()),
    ],
)
def test_names_and_the_lists_they_need(server, asked, words, found, lists) -> None:
    assert asked(*words) == (found, lists)
    assert server.forms <= {_METADATA}


def test_files_on_the_line_go_before_the_cluster(server, config) -> None:
    assert completions("explain", "--kubeconfig", config, "-f", EXAMPLE, "shop/web-") == [
        "shop/web-0",
        "shop/web-1",
        ":4",
    ]
    assert completions("explain", "--kubeconfig", config, "-f", "-", "shop/web-") == [":4"]
    assert server.asked == []


def test_the_context_is_the_one_on_the_line(server, config, podfence, tmp_path) -> None:
    """As typed, before the cursor or behind it, whatever the current one is; and no shell has replaced a ~ yet."""
    tree = json.loads(config.read_text())
    tree["contexts"].append({"name": "nowhere", "context": {"cluster": "nowhere", "user": "test"}})
    tree["clusters"].append({"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}})
    config.write_text(json.dumps({**tree, "current-context": "nowhere"}))
    asked = ("explain", "--kubeconfig", config)
    assert completions(*asked, "shop/d") == [":4"]
    assert completions(*asked, "--context=test", "shop/db") == ["shop/db", ":4"]
    line = "podfence explain shop/db --context test --kubeconfig ~/kubeconfig"
    ran = podfence(_PODFENCE_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD="2", HOME=str(tmp_path))
    assert (ran.stdout, ran.stderr) == ("plain,shop/db\n", "")


def test_no_name_of_a_cluster_harms_a_shell(server, asked) -> None:
    for name in HOSTILE:
        server.objects += [named("Pod", name, "shop"), named("Namespace", name), named("NetworkPolicy", name, "shop")]
    assert asked("explain", "shop/")[0] == IN_SHOP
    assert asked("explain", "-n", "")[0] == ["data", "default", "shop", ":4"]
    assert asked("lint", "--without", "shop/")[0] == ["shop/netpol/closed", ":4"]


def test_what_may_not_be_read_holds_no_names_and_the_rest_does(server, asked) -> None:
    server.refuse = ("pods", "services")
    assert asked("explain", "")[0] == ["data/", "default/", "internet", "node/", "shop/", ":6"]
    server.refuse = ("services",)
    assert asked("explain", "-n", "shop", "db")[0] == ["db", ":4"]


def plugin(config: Path, code: str) -> None:
    """The user is whom a program says."""
    tree = json.loads(config.read_text())
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": ["-c", code]}
    tree["users"][0]["user"] = {"exec": {**program, "interactiveMode": "Never"}}
    config.write_text(json.dumps(tree))


@pytest.mark.parametrize("code", ["import sys; sys.exit('no such account')", "print('nonsense')", "1/0"])
def test_a_plugin_that_fails_is_silent(config, code) -> None:
    plugin(config, code)
    assert completions("explain", "--kubeconfig", config, "shop/") == [":4"]


@pytest.mark.parametrize("text", ["", "{", "clusters: 7"])
def test_a_kubeconfig_without_meaning_is_silent(tmp_path, text) -> None:
    (tmp_path / "config").write_text(text)
    assert completions("explain", "--kubeconfig", tmp_path / "config", "") == [":4"]
    assert completions("explain", "--kubeconfig", tmp_path / "none", "") == [":4"]


@pytest.mark.parametrize("hangs", ["server", "plugin"])
def test_who_does_not_answer_is_not_waited_for(server, config, hangs) -> None:
    if hangs == "plugin":
        plugin(config, "import time; time.sleep(20)")
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        config.write_text(config.read_text().replace(server.url, f"http://127.0.0.1:{deaf.getsockname()[1]}"))
        assert completions("explain", "--kubeconfig", config, "shop/") == [":4"]
    assert time.monotonic() - began < SECONDS + 8  # with the start of Python on a busy machine
