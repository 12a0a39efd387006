"""`explain --fix`: the smallest change that turns the verdict, as YAML and as a patch of the user's own file, and read
again before it is shown."""

from __future__ import annotations

from difflib import unified_diff

from msgspec.structs import replace

from compiler.candidates import Ask, Changed
from compiler.compile import Compiled
from compiler.fix import closing, opening
from compiler.prefixes import disjoint_cover
from compiler.verdict import Flow, verdict
from podfence.answers import FixOut
from podfence.asking import Asking, Port
from podfence.ends import Named
from policy.cidr import Prefix
from policy.decode import read_documents
from policy.edit import NotEditable, block_text, edit
from policy.errors import UnreadableInput
from policy.model import NetworkPolicy
from policy.write import manifest

_MOST = 100


def fix(asking: Asking, src: Named, dst: Named, port: Port) -> tuple[FixOut | None, list[str]]:
    """The change, and what is to be said about it. Where flows have different verdicts it opens those that are denied.
    None where no policy can turn it."""
    flows = tuple(asking.flows(src, dst, port))
    if len(flows) > _MOST:
        return None, [f"no fix is sought for {len(flows)} flows at once: name pods, not workloads"]
    ask = Ask(flows, asking.node_egress, _blocks(src) or _blocks(dst))
    wants_open = any(not verdict(asking.compiled, flow, asking.node_egress).allowed for flow in flows)
    found = (opening if wants_open else closing)(asking.compiled, ask)
    if found is None:
        return None, ["no policy can turn this verdict: what policies do not see, they can't change"]
    patches, policies, written = [], [], []
    for change in found.changes:
        patch, policy, text = _written(change)
        if policy is None:
            return None, [f"{change.policy.key} can't be changed safely: it holds what is not understood"]
        patches += [patch] * bool(patch)
        written.append(policy)
        policies.append(text)
    if not _turned(asking, written, flows, wants_open):
        return None, ["the change that was found did not hold when it was read again: please report this"]
    return FixOut(
        "; ".join(change.text for change in found.changes),
        "allowed" if wants_open else "denied",
        policies,
        patches if len(patches) == len(policies) else [],
        [f"{each.src} -> {each.dst} on {each.ports}" for each in found.opens],
        [f"{each.src} -> {each.dst} on {each.ports}" for each in found.closes],
    ), []


def _turned(asking: Asking, policies: list[NetworkPolicy], flows: tuple[Flow, ...], allowed: bool) -> bool:
    """Whether the policies, as they were written and read again, do it."""
    keys = {policy.key for policy in policies}
    cluster = asking.compiled.cluster
    kept = [policy for policy in cluster.policies if policy.key not in keys]
    after = Compiled(replace(cluster, policies=[*kept, *policies]))
    return all(verdict(after, flow, asking.node_egress).allowed is allowed for flow in flows)


def _written(change: Changed) -> tuple[str, NetworkPolicy | None, str]:
    """The patch of the file where there is one, the policy as it is read again, and its YAML."""
    policy = change.policy
    tree = manifest(policy)
    text = block_text(tree) if tree else ""
    if change.old is not None and change.old.source is not None:
        try:
            before, after = edit(change.old.source, list(change.edits))
            read = _again(after, change.old.source.file, policy)
        except (NotEditable, UnreadableInput):
            read = None
        if read is not None:
            file = change.old.source.file
            lines = unified_diff(before.splitlines(True), after.splitlines(True), f"a/{file}", f"b/{file}")
            return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines), read, text
    return "", _again(text, "", policy) if tree else None, text


def _again(text: str, file: str, policy: NetworkPolicy) -> NetworkPolicy | None:
    """The policy of that name in `text`."""
    found = read_documents(text.encode(), file).cluster.policies
    return next((each for each in found if each.key == policy.key), None)


def _blocks(named: Named) -> tuple[Prefix, ...]:
    if named.block is None:
        return ()
    if named.sort == "internet":
        return tuple(map(_whole, (4, 6)))
    return tuple(entry.prefix for family in (4, 6) for entry in disjoint_cover(named.block.of(family), family))


def _whole(family: int) -> Prefix:
    return Prefix(4 if family == 4 else 6, 0, 0)
