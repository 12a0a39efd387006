"""docs/reliability.md: its prose is written by hand, its tables by the runs that were recorded.

`python -m tests.soak.page` fills them in, from `tests/soak/results/`. A table stands between `<!-- table: NAME -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.soak.arrivals import TARGET, Arrived
from tests.soak.losses import Lost
from tests.soak.run import Report
from tests.soak.tell import percentile

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_SECTION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_Found = TypeVar("_Found")


def filled(text: str) -> str:
    """`text` with every table as the records have it."""
    return _SECTION.sub(lambda found: f"{found[1]}{_TABLES[found[2]]()}{found[3]}", text)


def _read(name: str, kind: type[_Found]) -> _Found:
    return msgspec.json.decode((RESULTS / name).read_bytes(), type=kind)


def soaks() -> list[Report]:
    return [_read(path.name, Report) for path in sorted(RESULTS.glob("soak-*.json"), reverse=True)]


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _side_by_side(rows: Iterable[tuple[str, Callable[[Report], str]]]) -> str:
    reports = soaks()
    head = ["", *(f"{report.attach}, seed {report.seed}" for report in reports)]
    return _rows(head, ([what, *map(tell, reports)] for what, tell in rows))


def _count(name: str) -> Callable[[Report], str]:
    """A dash where the run, an older one, did not count it."""
    return lambda report: f"{report.counts[name]:,}" if name in report.counts else "–"


def _verdicts() -> str:
    return _side_by_side(
        [
            ("probes", _count("judged")),
            ("**wrong verdicts**", lambda report: f"**{len(report.wrong)}**"),
            ("for how long", lambda report: f"{report.seconds / 60:.0f} min"),
            ("passed", _count("passed")),
            ("while something was in transition", _count("in a transition")),
            ("of those, either verdict was right for", _count("with either verdict")),
            ("beside damage by others, so either was right", _count("beside damage")),
            ("in flows that were open already", _count("in open flows")),
            ("of those, in flows of an address's former owner", _count("inherited")),
            (
                "of those in open flows, beside a node without an agent, so either was right",
                _count("beside an absence"),
            ),
        ]
    )


def _spread(times: Sequence[float]) -> str:
    if not times:
        return "none"
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    return f"{len(times):,}: {p50 * 1e3:.0f} ms, {p99:.2f} s, {times[-1]:.2f} s"


def _times() -> str:
    return _side_by_side(
        [
            ("changes in transition", lambda report: _spread(report.widths)),
            ("those beside a fault", lambda report: _spread(report.widths_beside_faults)),
            ("damage until it was repaired", lambda report: _spread(report.repairs)),
            ("addresses handed over, without a link", lambda report: _spread(report.gaps)),
            ("packets in flows of the former owner that still passed, after", lambda report: _spread(report.lags)),
        ]
    )


def _happened() -> str:
    reports = soaks()
    names = sorted({name for report in reports for name in report.changes | report.faults})
    return _side_by_side([(name, _happened_in(name)) for name in names])


def _happened_in(name: str) -> Callable[[Report], str]:
    return lambda report: f"{(report.changes | report.faults).get(name, 0):,}"


def _flat() -> str:
    rows = []
    for report in soaks():
        for node, was in report.before.items():
            now = report.after[node]
            pairs = [
                (f"{was.megabytes:.1f} MB", f"{now.megabytes:.1f} MB"),
                (was.files, now.files),
                (len(was.chains), len(now.chains)),
                (was.rules, now.rules),
                (len(was.sets), len(now.sets)),
                (was.entries, now.entries),
            ]
            rows.append([report.attach, node, *(f"{before} → {after}" for before, after in pairs)])
    return _rows(("pods", "node", "agent's memory", "its files", "chains", "rules", "sets", "entries"), rows)


def _lost() -> str:
    found = _read("losses.json", list[Lost])
    return _rows(
        ("what", "backend", "new flows", "lost", "packets of an open flow", "lost"),
        (
            [
                f"{each.times:,} {each.what}",
                each.backend,
                *_of(each.sent, each.lost),
                *_of(each.sent_open, each.lost_open),
            ]
            for each in found
        ),
    )


def _of(sent: int, lost: int) -> tuple[str, str]:
    return f"{sent:,}", f"{lost}"


def _arrived() -> str:
    rows = []
    for each in _read("arrivals.json", list[Arrived]):
        times = (percentile(each.waits, 0.5), each.p99, each.waits[-1])
        verdict = "met" if each.p99 <= TARGET else "**missed**"
        slipped = f"{each.forbidden_arrived} of {each.forbidden_sent:,}"
        told = (f"{time * 1e3:.0f} ms" for time in times)
        rows.append([each.backend, f"{len(each.waits)}", *told, verdict, slipped])
    head = ("backend", "pods", "p50", "p99", "longest", f"at most {TARGET * 1e3:.0f} ms, p99", "forbidden that arrived")
    return _rows(head, rows)


_TABLES = {
    "verdicts": _verdicts,
    "times": _times,
    "happened": _happened,
    "flat": _flat,
    "lost": _lost,
    "arrived": _arrived,
}


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
