"""Figures of few samples: a slow machine may give but one."""

from __future__ import annotations

import pytest

from benchmarks.record import figure, percentile


@pytest.mark.parametrize("which", [1, 50, 99])
def test_one_sample_is_each_of_its_percentiles(which: int) -> None:
    assert percentile([7.0], which) == 7.0


def test_a_percentile_lies_between_the_samples_nearest_to_it() -> None:
    assert [percentile([0.0, 10.0], which) for which in (1, 50, 99)] == pytest.approx([0.1, 5.0, 9.9])


def test_a_figure_of_one_sample_has_no_spread() -> None:
    only = figure("x", [3.0], "ms", 4.0)
    assert (only.low, only.median, only.high, only.samples, only.met) == (3.0, 3.0, 3.0, 1, True)
