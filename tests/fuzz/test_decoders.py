"""Each decoder on spoiled bytes, for a moment each and always the same ones; `make fuzz-decoders` goes on."""

from __future__ import annotations

from random import Random

import pytest

from enforcer.cluster.resources import POLICIES
from enforcer.cluster.watch_wire import read_event
from policy.model import DIRECTIONS, NetworkPolicy
from tests.fuzz.run import attempt, run
from tests.fuzz.targets import TARGETS, Target

# One input of each that was found by fuzzing, and is mended.
FOUND = {
    "watch: lines": b'{"type":"ADDED","object":{"metadata":{"name":"p\x84","namespace":"s"},"spec":{},"status":{}}}',
    "ipset over netlink": bytes.fromhex(
        "44000000070600000000000000000000000000000f00020070662d342d7374616c6500000c000300686173683a697000"
        "05000500020000000c000780080018400000000140000000070600000100000000000000000000000b00020070662d34"
        "2d7800000c000300686173683a69700005000500020000000c0007800800184000000001340000000706100001000000"
        "00000000000000000b00020070662d342d7800001400080000000f80100007800c000180080001400a00000114000000"
        "03000000010000000000000000000000"
    ),
    "connection table": bytes(4) + b"\0\1" + bytes(40),
    "links and routes": bytes(40),
    "CNI results": b'{"kind": "cniCacheV1", "x": ' + b"[" * 5000,
    "iptables-save": b':PODFENCE-INPUT - [0:0]\n[0:0] -A PODFENCE-INPUT -m set --match-set "pf-4 x" src -j DROP\n',
    "options": b"node: n1\n---\n",
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_for_a_moment(target: Target) -> None:
    result = run(target.name, 1.0, seed=7)
    assert result.found is None, result.found
    assert result.inputs > len(target.examples()), "it got beyond the examples themselves"


def test_a_policy_with_bytes_that_are_no_text_isolates() -> None:
    """Wherever they are, as long as what it is called can be read."""
    line = b'{"type":"ADDED","object":{"metadata":{"name":"p","namespace":"s","uid":"\xed\xa0\x80"},"spec":{}}}'
    attempt(next(each for each in TARGETS if each.name == "watch: lines"), line)
    news = read_event(POLICIES, line).news
    assert news and isinstance(news.event, NetworkPolicy) and news.event.isolates == DIRECTIONS


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_mended(name: str) -> None:
    target = next(each for each in TARGETS if each.name == name)
    attempt(target, FOUND[name])


def test_the_fuzzer_finds_what_is_wrong() -> None:
    """A decoder that fails now and then, and one that never ends: or nobody would know that it looks."""

    def fails(data: bytes) -> None:
        assert b"\xff" not in data

    def hangs(data: bytes) -> None:
        while b"\xff" in data:
            pass

    from tests.fuzz import run as runner
    from tests.fuzz.targets import inputs

    for check in (fails, hangs):
        target = Target("broken", lambda: [b"some bytes"], check)
        before, runner.TOO_LONG = runner.TOO_LONG, 0.2
        try:
            with pytest.raises(AssertionError):
                for data, _ in zip(inputs(target, Random(1)), range(10_000), strict=False):
                    attempt(target, data)
        finally:
            runner.TOO_LONG = before
