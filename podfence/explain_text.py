"""An explanation for people: the verdict in the first line, then both ends, then why, the nearest miss first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from podfence.answers import Answer, EndOut, Explanation, FixOut, LiveOut, MissOut, Place, Side

_COLOURS = {"allowed": "green", "denied": "red", "unknown": "yellow"}
_SHOWN = 4
_RESTS_ON = {
    "spec": "the API text",
    "open": "a choice of podfence: the API text leaves it open",
    "ours": "a choice of podfence, about what the API server would refuse or a file leaves out",
}


class Line(Struct, frozen=True):
    text: str
    colour: str = ""


def lines(explained: Explanation, wide: bool = False) -> Iterator[Line]:
    """`wide` shows all that `-o json` does; otherwise long lists are cut."""
    for at, answer in enumerate(explained.answers):
        if at:
            yield Line("")
        yield from _answer(answer, wide)
    for note in explained.notes:
        yield Line(note)
    for unseen in explained.unseen:
        yield Line(f"not seen: {unseen}", "yellow")
    if explained.live:
        yield from _live(explained.live)
    if explained.fix:
        yield from _fix(explained.fix)


def _answer(answer: Answer, wide: bool) -> Iterator[Line]:
    yield Line(_verdict(answer), _COLOURS[answer.verdict])
    for word, end in (("from", answer.src), ("to  ", answer.dst)):
        yield Line(f"  {word} {_described(end, wide)}")
    if answer.via:
        yield Line(f"  by   {answer.via.asked} -> {answer.via.leads_to}")
    for direction, side, end in (("egress", answer.egress, answer.src), ("ingress", answer.ingress, answer.dst)):
        yield from _side(direction, side, end, wide, answer.ports is not None)
    for note in answer.notes:
        yield Line(f"  note: {note}")
    if wide:
        for row in answer.rows:
            yield Line(f"  rests on row {row.row} ({row.source}): {row.text}")
    else:
        yield Line(f"  rests on {_RESTS_ON[answer.rests_on]} ({_rows(answer)})")


def _rows(answer: Answer) -> str:
    """Those that make it rest on what it does."""
    rows = [str(row.row) for row in answer.rows if row.source == answer.rests_on]
    return f"row{'s' * (len(rows) > 1)} {', '.join(rows)}"


def _verdict(answer: Answer) -> str:
    src, dst = _called(answer.src), _called(answer.dst)
    if answer.ports is None:
        port = answer.protocol if not answer.port else f"{answer.port}/{answer.protocol}"
        return f"{answer.verdict.upper()}: {src} -> {dst}, {port}"
    if answer.verdict == "unknown":
        return f"UNKNOWN: {src} -> {dst}, {answer.ports or 'nothing'} for sure"
    if answer.ports:
        return f"ALLOWED on {answer.ports}: {src} -> {dst}"
    return f"DENIED on every port and protocol: {src} -> {dst}"


def _called(end: EndOut) -> str:
    first, *more = end.names
    return f"{first} and {len(more)} alike" if len(more) > 1 else " and ".join(end.names)


def _described(end: EndOut, wide: bool) -> str:
    shown = end.names if wide else _cut(end.names)
    text = ", ".join(shown)
    addresses = [address for address in (end.addresses if wide else _cut(end.addresses)) if address not in end.names]
    if addresses:
        text += f" ({', '.join(addresses)})"
    nodes = [node for node in end.nodes if end.names != [f"node/{node}"]]
    if nodes:
        text += f" on {', '.join(nodes if wide else _cut(nodes))}"
    return text


def _cut(texts: list[str]) -> list[str]:
    return texts if len(texts) <= _SHOWN else [*texts[: _SHOWN - 1], f"… {len(texts) - _SHOWN + 1} more"]


def _side(direction: str, side: Side, end: EndOut, wide: bool, ports: bool) -> Iterator[Line]:
    head = f"  {direction} of {_called(end)}: "
    if ports and side.because in ("rule", "no rule"):
        names = _policies(side)
        if not side.allowed:
            yield Line(f"{head}nothing, isolated by {names}")
            return
        yield Line(f"{head}{side.ports}, isolated by {names}")
        yield from (Line(f"    {place}") for place in (side.rules if wide else _cut_places(side.rules)))
        return
    reasons = {
        "no pod": "no policy applies: it is not a pod, or one in its node's network",
        "finished": "no policy applies to a pod that is finished; its address may be someone else's by now",
        "open": "no policy isolates it in this direction",
        "self": "a pod always reaches itself",
        "own node": "a pod and its own node",
    }
    if side.because == "rule":
        yield Line(f"{head}allowed by")
        yield from (Line(f"    {place}") for place in (side.rules if wide else _cut_places(side.rules)))
    elif side.because == "no rule":
        policies = f"{len(side.misses)} policies isolate it, and none admits" if len(side.misses) > 1 else (
            "one policy isolates it, and does not admit"
        )  # fmt: skip
        yield Line(f"{head}denied; {policies} the flow", "red")
        for miss in side.misses:
            yield from _miss(miss)
    else:
        yield Line(f"{head}allowed, {reasons[side.because]}")


def _cut_places(places: list[Place]) -> list[Place | str]:
    if len(places) <= _SHOWN:
        return list(places)
    return [*places[: _SHOWN - 1], f"… {len(places) - _SHOWN + 1} more (-o wide)"]


def _policies(side: Side) -> str:
    return ", ".join(_cut([place.policy for place in side.isolated_by]))


def _miss(miss: MissOut) -> Iterator[Line]:
    yield Line(f"    {miss.place}")
    yield from (Line(f"      {obstacle.text}") for obstacle in miss.obstacles)


def _live(live: LiveOut) -> Iterator[Line]:
    for walk in live.walks:
        yield Line("")
        as_said = ", as the mode says, though policies deny it" if walk.spared else ", as the policies say"
        same = "" if walk.drift else as_said
        yield Line(
            f"KERNEL of {walk.node}, IPv{walk.family}, {walk.hook}: {walk.outcome}{same}",
            "red" if walk.drift else "green",
        )
        yield Line(f"  {walk.packet}")
        chain = ""
        for step in walk.steps:
            if step.chain != chain:
                chain = step.chain
                yield Line(f"  {chain}")
            yield Line(f"    {step.packets:>8} packets  {step.rule}")
        if walk.drift:
            yield Line(f"  DRIFT: {walk.drift}", "red")
    for unseen in live.unseen:
        yield Line(f"not seen: {unseen}", "yellow")


def _fix(fix: FixOut) -> Iterator[Line]:
    yield Line("")
    yield Line(f"FIX, verified: {fix.text}", "green")
    for text in fix.patches or fix.policies:
        yield from (Line(f"  {each}") for each in text.rstrip("\n").split("\n"))
    yield from _blast("also opens", fix.opens)
    yield from _blast("also closes", fix.closes)
    if not fix.opens and not fix.closes:
        yield Line("  changes no other flow between workloads")


def _blast(word: str, flows: Iterable[str]) -> Iterator[Line]:
    yield from (Line(f"  {word} {flow}") for flow in flows)
