"""`podfence matrix` and `podfence reach`: what they print, in every syntax, also of names that are made to break it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
import yaml

from podfence.graphs import Edge, End, Graph, csv_lines, dot_lines, mermaid_lines

EXAMPLE = Path(__file__).parents[2] / "manifests/examples/shop"
EVIL = 'x"];a->b;\\N|<script>#quot;\x1b[31m\n=cmd()'


def test_the_matrix_of_the_example(podfence) -> None:
    ran = podfence("matrix", "-f", EXAMPLE)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[1] == "  1 shop/web-0 (2 pods)         ·  ◐  ◐  ·  ·  ·  ·  ·  ◐  ·  ·"
    assert lines[9] == "  9 kube-system/dns-0 (2 pods)  ◐  ·  ·  ·  ·  ·  ·  ·  ●  ●  ●"


def test_all_forms_hold_the_same_edges(podfence) -> None:
    def run(form: str) -> str:
        return podfence("matrix", "-f", EXAMPLE, "-o", form).stdout

    graph = json.loads(run("json"))
    assert yaml.safe_load(run("yaml")) == graph
    pairs = {(edge["src"], edge["dst"]) for edge in graph["edges"]}
    rows = list(csv.DictReader(io.StringIO(run("csv"))))
    assert {(row["from"], row["to"]) for row in rows} == pairs
    assert {row["from_pods"] for row in rows if row["from"] == "shop/web-0"} == {"2"}
    assert run("dot").count(" -> ") == run("mermaid").count(" -->") == len(pairs)


def test_wide_matrices_are_lines(podfence, tmp_path) -> None:
    pods = "---\n".join(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p-{at}, labels: {{n: n-{at}}}}}\n"
        f"status: {{podIP: 10.0.0.{at}}}\n"
        for at in range(1, 42)
    )
    (tmp_path / "pods.yaml").write_text(pods)
    lines = podfence("matrix", "-f", tmp_path).stdout.splitlines()
    assert len(lines) == 41 * 40 + 2 * 41
    assert lines[0] == "default/p-1 -> default/p-2: every port and protocol"


def test_reach_of_the_example(podfence) -> None:
    ran = podfence("reach", "--from", "shop/worker-0", "-f", EXAMPLE, "--depth", "2")
    assert ran.stdout == (
        "from shop/worker-0: 6 of 10 can be reached\n"
        "  1  shop/api-0: 8080/TCP\n"
        "  1  kube-system/dns-0 (2 pods): 53/TCP, 53/UDP\n"
        "  2  data/db-0 (2 pods): 5432/TCP, from shop/api-0\n"
        "  2  data/cache-0: 6379/TCP, from shop/api-0\n"
        "  2  shop/web-0 (2 pods): 8080/TCP, from kube-system/dns-0\n"
        "  2  kube-system/prometheus-0: every port and protocol, from kube-system/dns-0\n"
        "  2  outside: every port and protocol, from kube-system/dns-0\n"
    ).replace("6 of 10", "7 of 10")


@pytest.mark.parametrize("start", ["node/n1", "203.0.113.9", "shop/nope"])
def test_reach_from_what_is_no_pod(podfence, start) -> None:
    ran = podfence("reach", "--from", start, "-f", EXAMPLE)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)


def test_reach_from_outside(podfence) -> None:
    graph = json.loads(podfence("reach", "--from", "internet", "--depth", "1", "-f", EXAMPLE, "-o", "json").stdout)
    assert [edge["dst"] for edge in graph["edges"]] == ["shop/web-0", "kube-system/dns-0", "kube-system/prometheus-0"]


def test_a_matrix_without_pods_is_unknown(podfence) -> None:
    ran = podfence("matrix", "-f", EXAMPLE / "policies-shop.yaml")
    assert (ran.returncode, ran.stdout) == (3, "")


HOSTILE = Graph([End(EVIL, 1), End("=1+1", 2)], [Edge(EVIL, "=1+1", '80"/TCP]|'), Edge("=1+1", EVIL, "@x")])


def test_csv_of_hostile_names() -> None:
    text = "\n".join(csv_lines(HOSTILE))
    rows = list(csv.reader(io.StringIO(text)))
    assert [len(row) for row in rows] == [6, 6, 6]
    assert not any(cell.startswith(("=", "@", "+", "-")) for row in rows for cell in row)
    assert "\x1b" not in text


def test_dot_of_hostile_names() -> None:
    lines = list(dot_lines(HOSTILE))
    quoted = r'"(?:[^"\\\n]|\\["\\])*"'
    line = re.compile(rf"  n\d+( -> n\d+)? \[label={quoted}\];")
    assert all(line.fullmatch(each) for each in lines[2:-1])
    assert len(lines) == 3 + 4


def test_mermaid_of_hostile_names() -> None:
    lines = list(mermaid_lines(HOSTILE))
    plain = r'"(?:[\w ./_,:()-]|#\d+;)*"'
    line = re.compile(rf"  n\d+(\[{plain}\]| -->\|{plain}\| n\d+)")
    assert all(line.fullmatch(each) for each in lines[1:])
