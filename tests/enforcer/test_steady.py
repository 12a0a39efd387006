"""Threads that go on."""

from __future__ import annotations

from enforcer.steady import steady


def test_a_thread_that_stumbles_begins_again_and_says_so_once_while_it_is_the_same() -> None:
    ends = iter([ValueError("a"), ValueError("a"), OSError("b"), None])
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if end := next(ends):
            raise end

    said: list[str] = []
    slept: list[float] = []
    thread = steady(run, "files", said.append, slept.append)
    thread.start()
    thread.join(5)
    assert not thread.is_alive() and len(runs) == 4 and slept == [1.0] * 3
    assert [line.rpartition(": ")[2] for line in said] == ["a", "b"] and "files" in said[0]
