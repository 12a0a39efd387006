"""The demo, as `make demo` runs it; and that it would notice a packet that does not do what the verdict says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from podfence.demo import Checked, symbol

OUTCOMES = ("open", "refused", "rejected", "dropped", "unreachable")


@pytest.mark.kernel
def test_demo_proves_every_verdict(podfence) -> None:
    ran = podfence("demo")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 differ from their verdicts" in ran.stdout
    assert "✗ a packet" in ran.stdout
    assert ran.stdout.count("✗") == 1, "once in the legend, never in the matrix"
    assert "\x1b" not in ran.stdout
    assert "$ podfence explain " in ran.stdout


@pytest.mark.kernel
@pytest.mark.parametrize(("form", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_demo_as_a_document(podfence, form, parse) -> None:
    ran = podfence("demo", "-o", form)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    answer = parse(ran.stdout)
    assert answer["differ"] == 0
    assert answer["passing"] + answer["denied"] == len(answer["flows"])
    flows = answer["flows"]
    assert answer["passing"] == sum(each["egress"] and each["ingress"] for each in flows)
    assert {each["outcome"] for each in flows if not (each["egress"] and each["ingress"])} <= {"rejected", "dropped"}


SABOTAGED = """
import sys, podfence.demo as demo
from podfence.main import main
honest = demo.apply
demo.apply = lambda lab, node: honest(lab, node) if node == "n1" else None
sys.exit(main(["demo"]))
"""


@pytest.mark.kernel
def test_demo_fails_where_one_node_does_not_enforce() -> None:
    ran = subprocess.run([sys.executable, "-c", SABOTAGED], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "the verdict is denied, the packet was open" in ran.stdout
    assert "the verdict is allowed, the packet was" not in ran.stdout


@pytest.mark.parametrize("allowed", [True, False])
def test_a_packet_against_the_verdict_is_noticed(allowed: bool) -> None:
    agreeing = {outcome for outcome in OUTCOMES if Checked(None, True, allowed, outcome).agrees}
    assert agreeing == ({"open", "refused"} if allowed else {"rejected", "dropped"})


def test_one_wrong_packet_marks_its_cell() -> None:
    right, denied = Checked(None, True, True, "open"), Checked(None, True, False, "rejected")
    wrong = Checked(None, False, True, "open")
    cells = ([], [right], [right, denied], [denied], [right, wrong])
    assert [symbol(cell)[0] for cell in cells] == ["", "●", "◐", "·", "✗"]
