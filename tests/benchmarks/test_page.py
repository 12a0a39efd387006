"""docs/performance.md says what was recorded, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import page
from benchmarks.machine import Machine
from benchmarks.plot import draw_all, time_text
from benchmarks.record import RESULTS, Case, Figure, Report, figure, read, write

MACHINE = Machine("a processor", 2, 1024, "6.1", "no", "3.11", "v1.8", "v7", 1, 1)


def report(*figures: Figure, name: str = "newflow") -> Report:
    return Report(name, "quick", "2030-01-01T00:00:00+00:00", 1.0, (0.5, 0.5), MACHINE, figures)


def some_figures() -> list[Figure]:
    found = []
    for backend in ("legacy", "nft"):
        for shape, cost in (("podfence", 2000.0), ("calico", 250000.0)):
            for count in (1, 1000):
                case: Case = {"ports": "one port", "policies": count, "shape": shape, "backend": backend}
                found.append(figure("new flow", [cost * count], "ns", None, **case))
            way: Case = {"cluster": "realistic cluster", "way": "from another node", "shape": shape, "backend": backend}
            found.append(figure("new flow", [cost], "ns", None, **way))
            found.append(figure("new flow against no policy", [1.5], "ratio", None, **way))
    return found


def test_the_page_holds_the_recorded_figures() -> None:
    text = page.PAGE.read_text()
    assert page.filled(text, read(RESULTS)) == text, "run `make bench`, or python -m benchmarks.run without a name"


def test_the_plots_on_the_page_are_there() -> None:
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.PAGE.read_text())
    assert shown
    for path in shown:
        ElementTree.fromstring((page.PAGE.parent / path).read_text())


def test_recorded_results_are_full_ones() -> None:
    assert {each.size for each in read(RESULTS).values()} == {"full"}


def test_a_ratio_is_told_with_its_target() -> None:
    missed = figure("new flow", [1.1, 1.2, 1.3], "ratio", 1.05, shape="podfence", policies=1000)
    assert page.sentence(missed) == "new flow (podfence, 1,000 policies): 1.20 ×, at most 1.05 ×"
    assert not missed.met
    assert (missed.low, missed.high) == (1.15, 1.25)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(498, "498 ns"), (2087, "2.09 µs"), (270091, "270 µs"), (1.5e9, "1.50 s"), (0, "0 ns"), (12.3e6, "12.3 ms")],
)
def test_times_are_shown_in_three_digits(nanoseconds: float, text: str) -> None:
    assert time_text(nanoseconds) == text


def test_tables_are_filled_again_and_again_with_the_same_result() -> None:
    reports = {"newflow": report(*some_figures())}
    empty = "".join(f"<!-- table: {name} -->\n<!-- end -->\n" for name in page.TABLES)
    once = page.filled(empty, reports)
    assert "| podfence | 2.00 µs | 1.50 × | 2.00 µs | 1.50 × |" in once
    assert "| calico | nft | 250 µs | 250 ms |" in once
    assert page.filled(once, reports) == once


def test_reports_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = report(*some_figures())
    write(written, tmp_path)
    assert read(tmp_path) == {"newflow": written}


def test_plots_are_drawn_with_every_shape(tmp_path: Path) -> None:
    draw_all({"newflow": report(*some_figures())}, tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert names == [f"{kind}-{mode}.svg" for kind in ("policies-one-port", "realistic") for mode in ("legacy", "nft")]
    for name in names:
        texts = [each.text for each in ElementTree.fromstring((tmp_path / name).read_text()).iter()]
        assert {"podfence", "calico"} <= set(texts)
