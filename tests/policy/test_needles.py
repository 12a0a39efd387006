"""What `Needles` says of stretches is what a look at each of them says."""

from __future__ import annotations

import random

from policy.needles import Needles

WORDS = [b'"ab"', b'"N', rb"\u", b"b"]


def test_as_a_look_at_each_stretch() -> None:
    draw = random.Random(1)
    for _ in range(300):
        data = bytes(draw.choice(b'"ab\\uN x') for _ in range(draw.randrange(120)))
        words = draw.sample(WORDS, draw.randrange(1, 4))
        needles, at = Needles(data, words), 0
        while at < len(data):
            start = at + draw.randrange(3)
            end = at = start + draw.randrange(1, 30)
            slow = any(data.startswith(word, place) for word in words for place in range(start, end))
            assert needles.any_between(start, end) is slow, (data, words, start, end)
