"""How the ends of a flow are called, and what is said where a name is not clear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CLUSTER = """\
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 198.51.0.0/16, except: [198.51.100.0/24]}}]
      ports: [{port: 5432}]
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop},
 spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}},
 spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{name: pg, containerPort: 5432}]}]},
 status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: deploy, labels: {app: x}}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop},
 spec: {clusterIP: 10.96.0.1, selector: {app: db}, ports: [{name: sql, port: 15432, targetPort: pg}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: away, namespace: shop},
 spec: {type: ExternalName, externalName: db.example.com}}
---
{apiVersion: v1, kind: Service, metadata: {name: typo, namespace: shop},
 spec: {clusterIP: 10.96.0.2, selector: {app: bd}, ports: [{port: 80}]}}
"""


@pytest.fixture
def asked(podfence, tmp_path: Path):
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER)

    def run(*arguments: object):
        return podfence("explain", *arguments, "-f", file)

    return run


@pytest.mark.parametrize("src", ["shop/deploy/web", "shop/deployment/web", "198.51.7.7", "198.51.0.0/24"])
@pytest.mark.parametrize("dst", ["shop/db", "shop/pod/db", "db", "10.0.0.1"])
def test_names_that_are_allowed(asked, src: str, dst: str) -> None:
    ran = asked(src, dst, "-n", "shop", "--port", "5432", "--expect", "allow", "-q")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("dst", ["svc/db", "shop/svc/db", "shop/service/db", "10.96.0.1"])
@pytest.mark.parametrize("port", ["15432", "sql"])
def test_services_lead_to_their_pods(asked, dst: str, port: str) -> None:
    ran = asked("shop/deploy/web", dst, "-n", "shop", "--port", port, "-o", "json")
    (answer,) = json.loads(ran.stdout)["answers"]
    assert (answer["dst"]["names"], answer["port"], answer["verdict"]) == (["shop/db"], 5432, "allowed")


def test_two_readings_are_an_error_that_shows_both(asked) -> None:
    ran = asked("deploy/web", "db", "-n", "shop", "--port", "5432")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "'deploy/web' is ambiguous: deploy/pod/web or shop/deploy/web" in ran.stderr


@pytest.mark.parametrize(
    ("name", "near"),
    [("shop/dbb", "shop/db"), ("shop/web", "shop/deploy/web"), ("svc/bd", "shop/svc/db"), ("node/n2", "node/n1")],
)
def test_what_is_not_there_gets_the_nearest_names(asked, name: str, near: str) -> None:
    ran = asked(name, "shop/db", "-n", "shop", "--port", "5432")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "near it: " in ran.stderr and near in ran.stderr.partition("near it: ")[2]


def test_a_block_is_cut_where_rules_cut_it(asked) -> None:
    ran = asked("198.51.0.0/16", "shop/db", "--port", "5432", "-o", "json")
    answers = json.loads(ran.stdout)["answers"]
    assert {(*answer["src"]["names"], answer["verdict"]) for answer in answers} == {
        ("198.51.128.0/17, 198.51.0.0/18, 198.51.64.0/19 and 5 smaller blocks", "allowed"),
        ("198.51.100.0/24", "denied"),
    }
    assert json.loads(ran.stdout)["verdict"] == "mixed"


def test_the_internet_is_no_private_address(asked) -> None:
    answers = json.loads(asked("internet", "shop/db", "--port", "5432", "-o", "json").stdout)["answers"]
    assert [answer["verdict"] for answer in answers] == ["denied", "allowed"]
    assert asked("internet", "shop/db", "--port", "80", "--expect", "deny", "-q").returncode == 0


def test_pods_that_do_not_exist_yet(asked) -> None:
    flow = ("shop/db", "--port", "5432", "-q")
    assert asked("shop/new", *flow, "--src-labels", "app=web,tier=x", "--expect", "allow").returncode == 0
    # No label admits these, but a block of the rule might hold the address that they will get.
    assert asked("shop/new", *flow, "--src-labels", "tier=x", "--expect", "deny").returncode == 3
    assert asked("bank/new", *flow, "--src-labels", "app=web", "--expect", "deny").returncode == 3
    # One that is there keeps its address.
    assert asked("deploy/pod/web", *flow, "--src-labels", "app=web", "--expect", "deny").returncode == 2
    assert asked("deploy/web", *flow, "--src-labels", "app=web", "--expect", "deny").returncode == 0
    # A pod that is there, as it would be.
    assert (
        asked("shop/deploy/web", "shop/db", "--dst-labels", "app=other", "--port", "1", "--expect", "allow").returncode
        == 0
    )
    ran = asked("shop/new", "shop/db", "--port", "5432", "--src-labels", "app")
    assert (ran.returncode, "expected KEY=VALUE" in ran.stderr) == (2, True)


def test_every_port_as_ranges(asked) -> None:
    answer = json.loads(asked("shop/deploy/web", "shop/db", "-o", "json").stdout)
    assert (answer["verdict"], answer["answers"][0]["ports"]) == ("mixed", "5432/TCP")
    assert asked("shop/deploy/web", "shop/db", "--expect", "allow").returncode == 1
    assert asked("deploy/pod/web", "shop/db", "--expect", "deny").returncode == 0
    assert asked("shop/db", "deploy/pod/web", "--expect", "allow").returncode == 0


def test_an_alias_is_said_to_be_one(asked) -> None:
    ran = asked("shop/db", "shop/svc/away", "--port", "5432")
    assert "is an ExternalName: a DNS alias of db.example.com" in ran.stdout


def test_a_service_that_selects_nothing_gets_the_nearest_pod(asked) -> None:
    ran = asked("shop/deploy/web", "shop/svc/typo", "--port", "80")
    assert ran.returncode == 3
    assert "pod shop/db has `app: db`, the Service wants `app: bd`" in ran.stdout


def test_a_port_that_a_service_has_not(asked) -> None:
    ran = asked("shop/deploy/web", "shop/svc/db", "--port", "pg")
    assert ran.returncode == 2
    assert "it has 15432/TCP (sql); pg is the target port of 15432" in ran.stderr


def test_wide_leaves_nothing_out(asked) -> None:
    ran = asked("shop/deploy/web", "shop/db", "--port", "5432", "-o", "wide")
    assert "rests on row 2 (spec)" in ran.stdout


HOSTILE = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: "evil\\e[31m", namespace: shop}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: "\\e]0;x\\a"}}}]}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: "a\\e[2J", namespace: shop, labels: {app: "\\e[2J"}},
 status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: shop}, status: {podIP: 10.0.0.2}}
"""


@pytest.mark.parametrize("form", ["text", "wide", "json", "yaml"])
def test_hostile_names_are_shown_escaped(podfence, form: str) -> None:
    for arguments in (("10.0.0.1", "shop/b"), ("shop/aa", "shop/b")):
        ran = podfence("explain", *arguments, "--port", "80", "-f", "-", "-o", form, "--fix", stdin=HOSTILE)
        assert not any(ord(char) < 32 and char != "\n" for char in ran.stdout + ran.stderr)


def test_ports_that_hang_on_an_address_are_not_guessed(podfence, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER)
    for labels, verdict, ports in (("app=x", "unknown", ""), ("app=web", "mixed", "5432/TCP")):
        ran = podfence("explain", "shop/new", "shop/db", "-f", file, "--src-labels", labels, "-o", "json")
        document = json.loads(ran.stdout)
        (answer,) = document["answers"]
        assert (document["verdict"], answer["ports"]) == (verdict, ports)
        hangs = "also 5432/TCP, if an end gets an address that a rule's block holds" in answer["notes"]
        assert (hangs, ran.returncode) == ((True, 3) if verdict == "unknown" else (False, 0))
