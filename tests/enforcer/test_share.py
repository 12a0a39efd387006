"""Work that somebody else gives cause for gets a share of the time."""

from __future__ import annotations

import pytest

from enforcer.attachment.share import Share


@pytest.mark.parametrize("cost", [0.001, 0.02, 0.2, 2.0])
def test_what_goes_on_for_long_gets_a_fifth_of_the_time_where_no_piece_is_long(cost: float) -> None:
    share, now, spent = Share(), 0.0, 0.0
    while now < 100:
        rest = share.rest(now, now + cost)
        spent += cost
        now += cost + rest
        assert rest <= 0.25
    most = max(0.2, cost / (cost + 0.25))
    assert spent / now <= most + 0.01


def test_a_burst_needs_no_rest_and_another_one_later_neither() -> None:
    share = Share()
    for begin in (0.0, 10.0):
        assert [share.rest(begin + at / 100, begin + at / 100 + 0.005) for at in range(40)] == [0.0] * 40
