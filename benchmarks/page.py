"""docs/performance.md: its prose is written by hand, its tables by the run that recorded the figures.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; `tables` says what each holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from benchmarks.plot import time_text
from benchmarks.record import Case, Figure, Report

Reports = Mapping[str, Report]
Table = Callable[[Reports], str]
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
API_PAGE = PAGE.with_name("api-server.md")
_SECTION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NANOSECONDS = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}


def update(reports: Reports, paths: Iterable[Path] = (PAGE, API_PAGE)) -> None:
    for path in paths:
        path.write_text(filled(path.read_text(), reports))


def filled(text: str, reports: Reports) -> str:
    """`text` with every table as the reports have it. KeyError for a table that nobody knows."""
    return _SECTION.sub(lambda found: f"{found[1]}{TABLES[found[2]](reports)}{found[3]}", text)


def value_text(figure: Figure) -> str:
    match figure.unit:
        case "ratio":
            digits = 0 if figure.median >= 100 else 2 if figure.median >= 0.1 else 4
            return f"{figure.median:,.{digits}f} ×"
        case "MB":
            return f"{figure.median:,.1f} MB"
        case "count":
            return f"{figure.median:,.0f}"
        case unit:
            return time_text(figure.median * _NANOSECONDS[unit])


def case_text(figure: Figure) -> str:
    """Whole numbers are counts of what their key says, but for the address family."""
    return ", ".join(_part_text(key, value) for key, value in figure.case.items())


def _part_text(key: str, value: str | int) -> str:
    if isinstance(value, str):
        return value
    return f"IPv{value}" if key in ("family", "IPv") else f"{value:,} {key}"


def sentence(figure: Figure) -> str:
    case = f" ({case_text(figure)})" if figure.case else ""
    target = f", at most {limit_text(figure)}" if figure.target is not None else ""
    return f"{figure.what}{case}: {value_text(figure)}{target}"


def limit_text(figure: Figure) -> str:
    return value_text(replace(figure, median=figure.target)) if figure.target is not None else ""


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _targets(reports: Reports) -> str:
    """Every figure that has a target, of every benchmark."""
    figures = [each for report in reports.values() for each in report.figures if each.target is not None]
    return _rows(
        ("what", "case", "measured", "at most", ""),
        ((f.what, case_text(f), value_text(f), limit_text(f), "met" if f.met else "**missed**") for f in figures),
    )


def _machine(reports: Reports) -> str:
    return _rows(
        ("benchmark", "recorded", "took", "machine", "load"),
        (
            (
                report.name,
                report.recorded,
                f"{report.seconds:.0f} s",
                f"{machine.processor}, {machine.cores} cores, kernel {machine.kernel}, iptables {machine.iptables}",
                f"{report.load[0]:.1f} to {report.load[1]:.1f}",
            )
            for report in reports.values()
            for machine in [report.machine]
        ),
    )


Column = tuple[str, str, Case]  # its heading; what it shows, in which case


def _by_shape(head: str, columns: Sequence[Column]) -> Table:
    """A row for each shape; empty where a column has nothing to say of it."""

    def table(reports: Reports) -> str:
        rows: dict[str, list[str]] = {}
        for number, (_, what, case) in enumerate(columns):
            for each in _figures(reports, "newflow"):
                if each.what == what and case.items() <= each.case.items():
                    row = rows.setdefault(str(each.case["shape"]), [""] * len(columns))
                    row[number] = value_text(each)
        return _rows((head, *(heading for heading, _, _ in columns)), ([shape, *row] for shape, row in rows.items()))

    return table


def _clusters(cluster: str, way: str) -> Table:
    columns: list[Column] = []
    for backend in ("legacy", "nft"):
        case: Case = {"cluster": cluster, "way": way, "backend": backend}
        columns += [(backend, "new flow", case), ("against none", "new flow against no policy", case)]
    return _by_shape(f"new flow, {way}", columns)


def _ends() -> Table:
    columns: list[Column] = []
    for backend in ("legacy", "nft"):
        columns.append((backend, "new flow, both ends isolated", {"backend": backend}))
        for heading, what in (("against none", "both ends isolated"), ("where nothing is isolated", "no pod isolated")):
            columns.append((heading, f"new flow, {what}, against no policy", {"backend": backend}))
    return _by_shape("both ends isolated", columns)


def _local_pods() -> Table:
    columns: list[Column] = [
        (f"{way}, {backend}", f"new flow, many local pods against {few}", {"way": way, "backend": backend})
        for way, few in (("from another node", 1), ("both ends on the node", 2))
        for backend in ("legacy", "nft")
    ]
    return _by_shape("250 local pods against one or two", columns)


def _random() -> Table:
    return _by_shape(
        "random clusters, against none",
        [
            (backend, "new flow against no policy", {"cluster": "random clusters", "backend": backend})
            for backend in ("legacy", "nft")
        ],
    )


def _policies(ports: str) -> Table:
    """A row for each shape and backend, a column for each number of policies."""

    def table(reports: Reports) -> str:
        found: dict[tuple[str, str], dict[int, str]] = {}
        for each in _figures(reports, "newflow"):
            if each.what == "new flow" and each.case.get("ports") == ports:
                key = (str(each.case["shape"]), str(each.case["backend"]))
                found.setdefault(key, {})[int(each.case["policies"])] = value_text(each)
        counts = sorted({count for costs in found.values() for count in costs})
        head = ("policies on the pod", "", *(f"{count:,}" for count in counts))
        return _rows(head, ([*key, *(costs[count] for count in counts)] for key, costs in found.items()))

    return table


def _met(reports: Reports) -> str:
    """What is left of the policies on a packet's way."""
    names = {
        "rules that a new flow meets": "rules met",
        "set lookups of a new flow": "lookups",
        "rules on the node": "rules on the node",
    }
    found: dict[str, dict[str, str]] = {}
    for each in _figures(reports, "newflow"):
        if each.what in names:
            found.setdefault(case_text(each), {})[names[each.what]] = value_text(each)
    return _rows(("case", *names.values()), ([case, *values.values()] for case, values in found.items()))


def _all(name: str, what: str = "") -> Table:
    """Every figure of a benchmark, or those of `what`."""

    def table(reports: Reports) -> str:
        if name not in reports:
            return "Not recorded yet.\n"
        figures = [each for each in reports[name].figures if what in ("", each.what)]
        rows = ((each.what, case_text(each), value_text(each), _spread(each)) for each in figures)
        return _rows(("what", "case", "median", "quartiles"), rows)

    return table


def _api_server(reports: Reports) -> str:
    """What a node costs the API server, and what a thousand would, by the size of the cluster."""
    rows = []
    for each in _figures(reports, "watch"):
        if "wire" in each.what or each.what in ("start, requests", "watches held"):
            thousand = replace(each, median=each.median * 1000)
            rows.append((each.what, case_text(each), value_text(each), value_text(thousand)))
    return _rows(("what", "case", "one node", "1,000 nodes"), rows)


def _spread(figure: Figure) -> str:
    return " to ".join(value_text(replace(figure, median=value)) for value in (figure.low, figure.high))


def _figures(reports: Reports, name: str) -> Sequence[Figure]:
    return reports[name].figures if name in reports else ()


TABLES: dict[str, Table] = {
    "targets": _targets,
    "machine": _machine,
    "sender": _all("newflow", "sender alone"),
    "realistic": _clusters("realistic cluster", "from another node"),
    "realistic-ends": _clusters("realistic cluster", "both ends on the node"),
    "random": _random(),
    "policies-one-port": _policies("one port"),
    "policies-a-port-each": _policies("a port each"),
    "met": _met,
    "ends": _ends(),
    "local-pods": _local_pods(),
    "lab": _all("lab"),
    "links": _all("links"),
    "cli": _all("cli"),
    "reach": _all("reach"),
    "index": _all("index"),
    "watch": _all("watch"),
    "api-server": _api_server,
    "keep": _all("keep"),
    "agent": _all("agent"),
    "ipset": _all("ipset"),
    "conntrack": _all("conntrack"),
    "cluster": _all("cluster"),
    "explain-server": _all("explain-server"),
}
