"""Others' truth tables, where they are beside the checkout, and what `tests.conformance.run` says of a file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tests.conformance import judge, run
from tests.conformance.kernel import Packets
from tests.conformance.tables import Case, Expected, as_line, dual, mapped_address, read, spread
from tests.semantics.world import policy, standing

TABLES = Path(__file__).parents[3] / "shared/conformance/truth-tables.jsonl.gz"
WITH_PACKETS = 25
beside = pytest.mark.skipif(not TABLES.exists(), reason=f"no truth tables beside the checkout: {TABLES}")


@beside
def test_every_verdict_by_evaluator_and_simulated_rules() -> None:
    cases = list(read(TABLES))
    missed = {(case.name, str(each)): said for case in cases for each, said in judge.wrong(case)}
    assert missed == {}
    assert sum(len(case.expected) for case in cases) == 54_540


@beside
@pytest.mark.kernel
@pytest.mark.slow
def test_clusters_of_every_tag_with_real_packets() -> None:
    chosen = spread(list(read(TABLES)), WITH_PACKETS)
    assert len(chosen) == WITH_PACKETS
    with Packets() as packets:
        missed = {(case.name, str(each)): said for case in chosen for each, said in packets.wrong(case)}
    assert missed == {}


@beside
def test_the_spread_covers_every_tag() -> None:
    cases = list(read(TABLES))
    assert {tag for case in spread(cases, WITH_PACKETS) for tag in case.tags} == {
        tag for case in cases for tag in case.tags
    }


def table() -> Case:
    """shop/web is closed but for bank/db, and another policy excepts a block."""
    objects = [
        *standing(),
        policy("{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 10.1.1.11/32}}]}]}"),
        policy("{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.1.0.0/24]}}]}]}", "bank/out"),
    ]
    expected = (
        Expected("bank/db", "shop/web", "TCP", 80, True, False),
        Expected("shop/db", "shop/web", "TCP", 80, False, True),
        Expected("bank/db", "203.0.113.7", "UDP", 53, True, True),
    )
    for each in objects:
        if each["kind"] == "Pod":
            each["status"]["podIPs"] = each["status"]["podIPs"][:1]
    return Case("a table", ("made here",), objects, expected)


@pytest.mark.parametrize("packed", [True, False])
def test_the_last_line_counts_and_the_exit_code_tells(
    packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = as_line(table())
    wrong = as_line(table())
    wrong["verdicts"][1][4] = True
    file = tmp_path / ("tables.jsonl.gz" if packed else "tables.jsonl")
    for lines, last in (([right], "3 verdicts, 0 mismatches"), ([right, wrong], "6 verdicts, 1 mismatches")):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        monkeypatch.setattr("sys.argv", ["run", "--tables", str(file)])
        assert run.main() == len(lines) - 1
        printed = capsys.readouterr().out.splitlines()
        assert printed[-1] == last
        assert len(printed) == len(lines)
    assert "shop/db -> shop/web TCP/80: expected ingress True, egress True; IPv4 verdict: ingress False" in printed[0]


@pytest.mark.parametrize("text", ["", "no json", "[1, 2]", '{"name": "x"}'])
def test_what_is_no_table_is_said_and_ends_with_2(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tables.jsonl"
    if text:
        file.write_text(text)
    monkeypatch.setattr("sys.argv", ["run", "--tables", str(file)])
    assert run.main() == 2
    assert "not a file of truth tables" in capsys.readouterr().err


def test_addresses_and_blocks_map_one_to_one() -> None:
    assert mapped_address("10.1.2.3") == "fd00::a01:203"
    mapped = dual(table().objects)
    pods = [each for each in mapped if each["kind"] == "Pod"]
    assert [each["ip"] for each in pods[0]["status"]["podIPs"]] == ["10.1.0.10", "fd00::a01:a"]
    peers = mapped[-1]["spec"]["egress"][0]["to"]
    assert peers[1] == {"ipBlock": {"cidr": "fd00::/96", "except": ["fd00::a01:0/120"]}}


@pytest.mark.kernel
def test_packets_notice_a_verdict_that_is_wrong_either_way() -> None:
    case = table()
    in_lab = [each for each in case.expected if "/" in each.dst]
    flipped = tuple(Expected(e.src, e.dst, e.protocol, e.port, not e.passes, not e.passes) for e in in_lab)
    with Packets() as packets:
        right = Case(case.name, case.tags, [*case.objects], tuple(in_lab))
        assert list(packets.wrong(right)) == []
        assert [each for each, _ in packets.wrong(Case(case.name, case.tags, case.objects, flipped))] == list(flipped)
