"""`podfence verdicts`: what is no flow is said in its line, and all three forms of output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

OBJECTS = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: done}
status: {phase: Succeeded, podIP: 10.0.0.2}
"""


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    file = tmp_path / "objects.yaml"
    file.write_text(OBJECTS)
    return file


def flows(*protocols: str, src: str = "internet", dst: str = "web") -> str:
    return "".join(json.dumps({"src": src, "dst": dst, "protocol": each, "port": 80}) + "\n" for each in protocols)


@pytest.mark.parametrize("protocol", ["TPC", "6", "", " TCP", "ıcmp", "ſctp"])
def test_an_unknown_protocol_is_an_error_of_its_line(podfence, objects, protocol) -> None:
    ran = podfence("verdicts", "-f", objects, "--flows", "-", stdin=flows("TCP", protocol, "UDP"))
    before, wrong, after = map(json.loads, ran.stdout.splitlines())
    assert ran.returncode == 4
    assert wrong["error"] == f"not a protocol: {protocol!r}, expected TCP, UDP, SCTP or ICMP"
    assert "allowed" not in wrong
    assert before["allowed"] is after["allowed"] is False


def test_protocols_in_either_case(podfence, objects) -> None:
    ran = podfence("verdicts", "-f", objects, "--flows", "-", stdin=flows("tcp", "Udp", "SCTP", "icmp"))
    assert ran.returncode == 0
    assert [json.loads(line)["protocol"] for line in ran.stdout.splitlines()] == ["TCP", "UDP", "SCTP", "ICMP"]


def test_of_finished_pods_it_is_said(podfence, objects) -> None:
    asked = flows("TCP", src="done") + flows("TCP", src="web", dst="done") + flows("TCP")
    ran = podfence("verdicts", "-f", objects, "--flows", "-", stdin=asked)
    assert ran.returncode == 0
    finished = [json.loads(line).get("finished") for line in ran.stdout.splitlines()]
    assert finished == [["default/done"], ["default/done"], None]


def test_yaml_is_a_document_a_line(podfence, objects) -> None:
    asked = flows("TCP", "TPC", "UDP")
    in_json = podfence("verdicts", "-f", objects, "--flows", "-", "-o", "json", stdin=asked).stdout
    in_yaml = podfence("verdicts", "-f", objects, "--flows", "-", "-o", "yaml", stdin=asked).stdout
    assert list(yaml.safe_load_all(in_yaml)) == [json.loads(line) for line in in_json.splitlines()]


@pytest.mark.parametrize("name", ["nope", "nope/nope"])
def test_flows_that_are_not_there(podfence, objects, name) -> None:
    ran = podfence("verdicts", "-f", objects, "--flows", objects.parent / name)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "no such file" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_flows_that_are_a_folder(podfence, objects) -> None:
    ran = podfence("verdicts", "-f", objects, "--flows", objects.parent)
    assert (ran.returncode, ran.stderr.count("\n")) == (4, 1)
