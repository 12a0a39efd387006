"""Answering flows of one kind once gives the answers that answering each by itself does."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from compiler.compile import compile_cluster
from podfence.asking import Asking, Likeness, read_port
from podfence.ends import Ends
from policy.decode import decode_objects
from policy.errors import UsageError
from tests import generate

_NAMES = ("10.0.0.0/8", "0.0.0.0/0", "::/0", "internet")


def answers(asking: Asking, src: str, dst: str, port: str) -> bytes:
    try:
        ends = asking.ends.find(src), asking.ends.find(dst)
        return msgspec.json.encode(asking.answers(*ends, read_port(port)))
    except UsageError as error:
        return str(error).encode()


@pytest.mark.parametrize("seed", range(12))
def test_each_flow_by_itself_is_answered_so_too(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(seed)
    compiled = compile_cluster(decode_objects(generate.cluster(rng)).cluster)
    asking = Asking(compiled, Ends(compiled))
    names = [*_NAMES, *rng.sample(sorted(compiled.pods), min(3, len(compiled.pods)))]
    names += [f"{pod.namespace}/{pod.workload}" for pod in compiled.cluster.pods if pod.workload][:2]
    questions = [(src, dst, port) for src in names for dst in names for port in ("80", "53/udp", "")]
    quick = [answers(asking, *question) for question in questions]
    monkeypatch.setattr(Likeness, "of", lambda *_: object())
    for question, found in zip(questions, quick, strict=True):
        assert answers(asking, *question) == found, question
