"""`podfence test`: cases that pass, fail and can't be known, and mistakes in the file, each with its place."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

EXAMPLE = Path(__file__).parents[2] / "manifests/examples/shop"
GOOD = """\
cases:
  - {name: web calls api, from: "shop/web-*", to: shop/api-0, port: 8080, expect: allow}
  - {name: by the port's name, from: "shop/web-*", to: "shop/api-*", port: http, expect: allow}
  - {name: web stays away from the db, from: "shop/web-*", to: data/db-0, expect: deny}
  - {from: internet, to: [data/db-0, "data/cache-*"], port: [5432, 1-65535/udp, icmp], expect: deny}
  - {name: nobody else, to: "data/db-*", port: 5432, only: ["shop/api-*", data/backup-0, "data/db-*"]}
  - {name: the outside but for batch jobs, to: shop/web-0, port: 8080, only: [outside, "*"]}
"""
BAD = """\
cases:
  - name: fails
    from: shop/web-0
    to: shop/web-1
    port: 8080
    expect: allow
  - {name: passes, from: shop/web-0, to: shop/api-0, port: 8080, expect: allow}
  - {name: others may too, to: "data/db-*", port: 5432, only: [shop/api-0, "data/*"]}
"""


@pytest.fixture
def run(podfence, tmp_path):
    def ran(cases: str, *arguments: object, files: object = EXAMPLE):
        (tmp_path / "cases.yaml").write_text(cases)
        return podfence("test", tmp_path / "cases.yaml", "-f", files, *arguments)

    return ran


def test_good_ones_pass(run) -> None:
    ran = run(GOOD)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "6 passed, 0 failed, 0 unknown"


def test_a_failing_case_names_its_flow_and_explains_it(run, tmp_path) -> None:
    ran = run(BAD)
    assert ran.returncode == 1
    lines = ran.stdout.splitlines()
    assert lines[0] == f"failed: fails ({tmp_path}/cases.yaml:2), 2 flows"
    assert lines[1] == "  shop/web-0 -> shop/web-1, 8080: no port"
    assert any("policies-shop.yaml:3" in text for text in lines), "the policy that isolates, with its place"
    assert "  shop/api-1 -> data/db-0, 5432: 5432/TCP" in lines
    assert lines[-1] == "1 passed, 2 failed, 0 unknown"


def test_json(run) -> None:
    first, second, _ = json.loads(run(BAD, "-o", "json").stdout)
    assert (first["outcome"], first["flows"], second["outcome"]) == ("failed", 2, "passed")
    assert first["wrong"] == [{"src": "shop/web-0", "dst": "shop/web-1", "port": "8080", "found": "no port"}]


def test_junit(run) -> None:
    root = ElementTree.fromstring(run(BAD.replace("fails", '"a]]><b>\\e[1m"'), "-o", "junit").stdout)
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "0")
    assert [[child.tag for child in case] for case in suite] == [["failure"], [], ["failure"]]
    assert suite[0].get("name") == "a]]><b>\\x1b[1m"
    assert "shop/web-0 -> shop/web-1" in suite[0][0].text


def test_nobody_else_counts_the_outside(run) -> None:
    ran = run("cases: [{to: shop/web-0, port: 8080, only: ['*']}]")
    assert ran.returncode == 1
    assert "outside (0.0.0.0/0 but" in ran.stdout
    inside = run("cases: [{to: shop/web-0, port: 8080, only: ['*', 0.0.0.0/0, '::/0']}]")
    assert inside.returncode == 0


UNKNOWN = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: new}
"""


@pytest.mark.parametrize("expect", ["allow", "deny"])
def test_what_cannot_be_known_ends_with_3(run, tmp_path, expect) -> None:
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown/objects.yaml").write_text(UNKNOWN)
    case = f"cases: [{{from: new, to: web, port: 80, expect: {expect}}}]"
    ran = run(case, files=tmp_path / "unknown")
    assert (ran.returncode, ran.stdout.partition(":")[0]) == (3, "unknown")
    assert "<error" in run(case, "-o", "junit", files=tmp_path / "unknown").stdout


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (
            "cases:\n- {form: a, to: b, port: 1, expect: deny}",
            [":2: cases[0].form: unknown field, did you mean 'from'?"],
        ),
        ("cases:\n- from: a\n  to: b\n  port: 1\n  expect: yes", [":5: cases[0].expect: "]),
        ("cases:\n- {from: a, expect: allow}", [":2: cases[0].to: missing", ":2: cases[0].port: missing"]),
        ("cases:\n- {to: a, only: [b], expect: deny}", [":2: cases[0].expect: beside only"]),
        ("cases:\n- {to: a, only: }", [":2: cases[0].only: null"]),
        ("cases: []", [":1: cases: expected a list"]),
        ("case: []", [":1: case: unknown field"]),
        ("cases:\n- text", [":2: cases[0]: "]),
        ("cases:\n- {to: [a, 1], from: x, expect: deny}", [":2: cases[0].to: '1', expected a name"]),
        ("- a", ["expected one mapping"]),
        ("a: [", ["not YAML"]),
        ("cases:\n- {to: a, to: b}", ["stands twice"]),
    ],
)
def test_mistakes_in_the_file_have_line_and_field(run, cases, said) -> None:
    ran = run(cases)
    assert (ran.returncode, ran.stdout) == (4, "")
    for each in said:
        assert each in ran.stderr, ran.stderr


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("{from: shop/wbe-0, to: shop/api-0, port: 1, expect: deny}", "cases[0].from: no pod"),
        ("{from: 'nope/*', to: shop/api-0, port: 1, expect: deny}", "cases[0].from: no pod or workload fits 'nope/*'"),
        ("{from: shop/web-0, to: shop/api-0, port: 1/tpc, expect: deny}", "cases[0].port: '1/tpc': not a protocol"),
        (
            "{from: shop/web-0, to: shop/api-0, port: nope, expect: deny}",
            "cases[0].port: 'nope': shop/api-0 has no port",
        ),
        ("{from: shop/web-0, to: shop/api-0, port: 70000, expect: deny}", "cases[0].port: '70000': not a port"),
    ],
)
def test_names_that_name_nothing_are_usage(run, case, said) -> None:
    ran = run(f"cases:\n- {case}")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert f"cases.yaml:2: {said}" in ran.stderr


@pytest.mark.kernel
def test_with_packets(run) -> None:
    cases = GOOD.replace("1-65535/udp", "53/udp").replace("to: data/db-0, expect", "to: data/db-0, port: 5432, expect")
    ran = run(cases, "--packets")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    bad = run(BAD, "--packets", "-o", "json")
    assert bad.returncode == 1
    first, second, third = json.loads(bad.stdout)
    assert (first["outcome"], second["outcome"], third["outcome"]) == ("failed", "passed", "failed")
    assert {each["found"] for each in first["wrong"]} == {"rejected"}
    assert {each["src"] for each in third["wrong"]} == {"shop/api-1"}
