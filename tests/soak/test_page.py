"""docs/reliability.md says what was recorded, and nothing else; and what was recorded is what was promised."""

from __future__ import annotations

from tests.soak import page


def test_the_page_holds_the_recorded_figures() -> None:
    text = page.PAGE.read_text()
    assert page.filled(text) == text, "run python -m tests.soak.page"


def test_a_recorded_soak_was_a_good_one() -> None:
    reports = page.soaks()
    assert reports and all(report.good for report in reports)
    assert max(report.counts["judged"] for report in reports) >= 1_000_000
