"""What is kept of answers is bounded by their size, and is what was asked for last."""

from __future__ import annotations

import tracemalloc

from compiler.kept import kept
from compiler.prefixes import disjoint_cover


def test_the_oldest_answers_go_once_there_is_too_much() -> None:
    looked: list[int] = []

    @kept(12)
    def squares(numbers: tuple[int, ...], power: int) -> tuple[int, ...]:
        looked.append(numbers[0])
        return tuple(number**power for number in numbers)

    assert squares((1, 2), 2) == (1, 4)
    assert squares((3, 4), 2) == (9, 16)
    assert squares((1, 2), 2) == (1, 4)
    assert looked == [1, 3]
    assert squares((5, 6), 2) == (25, 36)
    assert squares((1, 2), 2) == (1, 4)
    assert looked == [1, 3, 5], "beyond twelve parts: what was asked for longest ago went"
    assert squares((3, 4), 2) == (9, 16)
    assert looked == [1, 3, 5, 3]
    assert squares((3, 4), 3) == (27, 64), "another question"


def test_what_alone_is_too_much_is_not_kept() -> None:
    looked: list[int] = []

    @kept(8)
    def same(numbers: tuple[int, ...], _: int) -> tuple[int, ...]:
        looked.append(len(numbers))
        return numbers

    assert same((1, 2, 3), 0) == same((1, 2, 3), 0) == (1, 2, 3)
    assert looked == [3, 3]
    assert same((), 0) == same((), 0) == ()
    assert looked == [3, 3, 0]


def test_a_policy_of_many_blocks_that_changes_for_ever_costs_memory_once() -> None:
    """Each time one of its thousands of blocks is another: all of them are covered anew."""
    tracemalloc.start()
    try:
        for number in range(50):
            blocks = tuple((at << 8, (at << 8) + 127) for at in (*range(4000), 5000 + number))
            assert len(disjoint_cover(blocks, 4)) == len(blocks)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 16 << 20
