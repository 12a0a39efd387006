"""A report as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.soak.run import Report

COUNTED = ("judged", "passed", "in a transition", "with either verdict", "beside damage")
OF_OPEN_FLOWS = ("in open flows", "passed in open flows", "inherited", "beside an absence")
_SHOWN = 5


def lines(report: Report) -> Iterator[str]:
    judged, passed, moving, either, beside = (report.counts.get(each, 0) for each in COUNTED)
    in_open, passed_in_open, inherited, absent = (report.counts.get(each, 0) for each in OF_OPEN_FLOWS)
    yield (
        f"{judged:,} probes in {report.seconds:.0f} s ({judged / report.seconds:.0f} a second), {passed:,} of which "
        f"passed: {len(report.wrong)} wrong verdicts"
    )
    yield (
        f"while something was in transition: {moving:,}; of those either verdict was right for {either:,}; "
        f"beside damage, so either was: {beside:,}"
    )
    yield (
        f"in open flows: {in_open:,}, of which {passed_in_open:,} passed; {inherited:,} in flows of an address's "
        f"former owner; beside a node whose agent was away, so either was right: {absent:,}"
    )
    yield f"addresses handed over: {_spread(report.gaps)} without a link"
    yield f"after that, packets that still passed in flows of the former owner: {_spread(report.lags)}"
    yield f"transitions: {_spread(report.widths)}"
    yield f"transitions beside faults: {_spread(report.widths_beside_faults)}"
    yield f"repairs: {_spread(report.repairs)}"
    yield "changes: " + _counted(report.changes)
    yield "faults: " + _counted(report.faults)
    for node in report.before:
        yield f"{node} after the warm-up: {report.before[node]}"
        if node in report.after:
            yield f"{node} at the end:        {report.after[node]}"
    for title, found in (
        ("wrong", report.wrong),
        ("longer than its bound", report.overdue),
        ("not flat", report.grown),
        ("failed", report.failures),
    ):
        for each in found[:_SHOWN] if title != "failed" else found:
            yield f"{title}: {each}"
        if len(found) > _SHOWN:
            yield f"{title}: {len(found)} in all"


def _spread(seconds: Sequence[float]) -> str:
    """Sorted ones."""
    if not seconds:
        return "none"
    p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    return f"{len(seconds)}, p50 {p50 * 1000:.0f} ms, p99 {p99:.2f} s, longest {seconds[-1]:.2f} s"


def percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items())) or "none"
