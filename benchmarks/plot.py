"""Plots as SVG by hand: lines over a count, and bars, both on a logarithmic scale of cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import floor, log10
from pathlib import Path
from xml.sax.saxutils import escape

from msgspec import Struct

from benchmarks.record import Figure, Report

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 360, 70, 130, 40, 50
_COLOURS = {"podfence": "#0b6e4f", "calico": "#d17a00", "kube-router": "#1f5fbf", "weave-npc": "#a02c6b"}
_OTHER = "#666666"
_TIMES = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns"))


class Line(Struct, frozen=True):
    """`points`: x and nanoseconds."""

    name: str
    points: tuple[tuple[float, float], ...]


def draw_all(reports: Mapping[str, Report], folder: Path) -> None:
    """The plots that the reports have figures for."""
    figures = reports["newflow"].figures if "newflow" in reports else ()
    for backend in ("legacy", "nft"):
        for ports in ("one port", "a port each"):
            found = _over_policies(figures, ports, backend)
            if found:
                title = f"New flow to a pod that N policies select, {ports}, iptables-{backend}"
                path = folder / f"policies-{ports.replace(' ', '-')}-{backend}.svg"
                path.write_text(lines(title, "policies", found))
        bars_of = _realistic(figures, backend)
        if bars_of:
            title = f"New flow from another node, realistic cluster, iptables-{backend}"
            (folder / f"realistic-{backend}.svg").write_text(bars(title, bars_of))


def _over_policies(figures: Iterable[Figure], ports: str, backend: str) -> list[Line]:
    points: dict[str, list[tuple[float, float]]] = {}
    for figure in figures:
        case = figure.case
        if figure.what == "new flow" and (case.get("ports"), case.get("backend")) == (ports, backend):
            points.setdefault(str(case["shape"]), []).append((float(case["policies"]), figure.median))
    return [Line(name, tuple(sorted(found))) for name, found in points.items()]


def _realistic(figures: Iterable[Figure], backend: str) -> dict[str, float]:
    wanted = {"cluster": "realistic cluster", "way": "from another node", "backend": backend}
    return {
        str(figure.case["shape"]): figure.median
        for figure in figures
        if figure.what == "new flow" and wanted.items() <= figure.case.items()
    }


def lines(title: str, x_name: str, drawn: Sequence[Line]) -> str:
    """Both axes are logarithmic; each line is named at its end."""
    xs = [x for line in drawn for x, _ in line.points]
    costs = [cost for line in drawn for _, cost in line.points]
    low, high = _decades(costs)
    x_low, x_high = log10(min(xs)), max(log10(max(xs)), log10(min(xs)) + 1)

    def place(x: float, cost: float) -> tuple[float, float]:
        across = (log10(x) - x_low) / (x_high - x_low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _at(cost, low, high)

    body = _grid(low, high)
    for x in sorted(set(xs)):
        body.append(_text(place(x, 1)[0], _HEIGHT - _BOTTOM + 18, f"{x:,.0f}", "middle"))
    body.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, x_name, "middle"))
    ends = _apart([(place(*line.points[-1])[1], line) for line in drawn])
    for label, line in ends:
        colour = _COLOURS.get(line.name, _OTHER)
        spots = [place(*point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots)
        body.append(_text(_WIDTH - _RIGHT + 10, label + 4, line.name, "start", colour))
    return _document(title, body)


def bars(title: str, costs: Mapping[str, float]) -> str:
    """One bar for each name, with its cost beside it."""
    low, high = _decades(costs.values())
    body = _grid(low, high)
    step = (_WIDTH - _LEFT - 20) / len(costs)
    for number, (name, cost) in enumerate(costs.items()):
        x, y = _LEFT + step * (number + 0.2), _at(cost, low, high)
        colour, height = _COLOURS.get(name, _OTHER), _HEIGHT - _BOTTOM - y
        body.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{step * 0.6:.1f}" height="{height:.1f}" fill="{colour}"/>')
        body.append(_text(x + step * 0.3, y - 6, time_text(cost), "middle"))
        body.append(_text(x + step * 0.3, _HEIGHT - _BOTTOM + 18, name, "middle"))
    return _document(title, body)


def time_text(nanoseconds: float) -> str:
    """Three digits and the unit that keeps them readable."""
    scale, unit = next(each for each in _TIMES if nanoseconds >= each[0] or each[0] == 1)
    value = nanoseconds / scale
    digits = max(0, 2 - floor(log10(value))) if value else 0
    return f"{value:,.{digits}f} {unit}"


def _decades(costs: Iterable[float]) -> tuple[int, int]:
    logs = [log10(cost) for cost in costs]
    return floor(min(logs)), max(floor(max(logs)) + 1, floor(min(logs)) + 1)


def _at(cost: float, low: int, high: int) -> float:
    return _HEIGHT - _BOTTOM - (log10(cost) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _apart(labels: Sequence[tuple[float, Line]]) -> list[tuple[float, Line]]:
    """Labels at least a line of text from each other."""
    placed: list[tuple[float, Line]] = []
    for y, line in sorted(labels, key=lambda label: label[0]):
        placed.append((max(y, placed[-1][0] + 14) if placed else y, line))
    return placed


def _grid(low: int, high: int) -> list[str]:
    found = []
    for decade in range(low, high + 1):
        y = _at(10.0**decade, low, high)
        found.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 20}" y2="{y:.1f}" stroke="#dddddd"/>')
        found.append(_text(_LEFT - 8, y + 4, time_text(10.0**decade), "end"))
    return found


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _document(title: str, body: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" role="img">'
    )
    background = f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
    heading = f'<text x="{_LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>'
    return "\n".join([head, f"<title>{escape(title)}</title>", background, heading, *body, "</svg>", ""])
