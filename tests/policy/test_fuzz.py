"""Properties over spoiled objects: no widening, one meaning for every way in, and nothing but clean errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from policy.decode import Decoded, decode_objects, read_documents
from policy.errors import UnreadableInput
from policy.model import DIRECTIONS, Cluster, NetworkPolicy
from policy.selector import EVERYTHING
from tests.policy.samples import OBJECTS, POLICY, WRONG, Path, Tree, places, spoiled, with_key, with_value


def read_policy(tree: Tree) -> tuple[NetworkPolicy, int]:
    decoded = decode_objects([tree])
    (policy,) = decoded.cluster.policies
    return policy, len(decoded.problems)


RIGHT, _ = read_policy(POLICY)
SPEC = [path for path in places(POLICY) if path[0] == "spec"]
KEYS = [path for path in SPEC if isinstance(path[-1], str) and path[-2:-1] != ("matchLabels",)]


def assert_no_wider(policy: NetworkPolicy) -> None:
    """Of RIGHT: it selects as much, isolates as much, and every rule is the same or grants nothing."""
    assert policy.subjects in (RIGHT.subjects, EVERYTHING)
    assert set(policy.isolates) >= set(RIGHT.isolates)
    for direction in DIRECTIONS:
        read, right = policy.rules(direction), RIGHT.rules(direction)
        assert len(read) <= len(right)
        assert all(rule == was or not rule.understood for rule, was in zip(read, right, strict=False))


def test_the_sample_is_right() -> None:
    assert all(not decode_objects([tree]).problems for tree in OBJECTS)
    assert all(rule.understood for direction in DIRECTIONS for rule in RIGHT.rules(direction))


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_wrong_value_anywhere_in_a_policy_is_said_and_never_widens_it(wrong: Any) -> None:
    for path in SPEC:
        policy, problems = read_policy(with_value(POLICY, path, wrong))
        assert problems > 0, path
        assert_no_wider(policy)


def test_an_unknown_key_anywhere_in_a_policy_is_said_and_never_widens_it() -> None:
    for path in KEYS:
        for key in (f"{path[-1]}s", str(path[-1]).upper(), ""):
            policy, problems = read_policy(with_key(POLICY, path, key))
            assert problems > 0, path
            assert_no_wider(policy)


def test_a_null_entry_of_any_list_is_said_and_never_widens_a_policy() -> None:
    for path in [path for path in SPEC if isinstance(path[-1], int)]:
        policy, problems = read_policy(with_value(POLICY, path, None))
        assert problems > 0, path
        assert_no_wider(policy)


def test_a_wrong_value_anywhere_in_a_rule_costs_that_rule_only() -> None:
    for path in SPEC:
        if len(path) > 3 and path[1] in DIRECTIONS:
            policy, _ = read_policy(with_value(POLICY, path, "junk!"))
            for direction in DIRECTIONS:
                expected = [(direction, at) != path[1:3] for at in range(len(RIGHT.rules(direction)))]
                assert [rule.understood for rule in policy.rules(direction)] == expected, path


Part = tuple[Any, ...]


def meaning(decoded: Decoded) -> tuple[list[list[Any]], list[Part]]:
    """What a cluster holds, and what is said of it, without the places."""
    cluster: Cluster = decoded.cluster
    objects: list[list[Any]] = [
        [replace(found, source=None) for found in part]
        for part in (
            cluster.namespaces,
            cluster.pods,
            cluster.policies,
            cluster.services,
            cluster.slices,
            cluster.nodes,
        )
    ]
    return objects, sorted((found.kind, found.name, found.field, found.reason) for found in decoded.problems)


def lines(decoded: Decoded, before: int) -> list[Part]:
    return [(found.line - before, found.field, found.reason) for found in decoded.problems]


@given(spoiled())
@settings(max_examples=300, deadline=None)
def test_every_way_in_gives_the_same_objects_and_problems(tree: Tree) -> None:
    expected = meaning(decode_objects([tree]))
    text = json.dumps(tree, indent=1)
    as_json = read_documents(text.encode(), "f")
    as_yaml = read_documents(f"---\n{text}".encode(), "f")
    block = read_documents(yaml.safe_dump(tree, default_style='"', allow_unicode=True).encode(), "f")
    in_list = read_documents(f'{{"kind": "List", "items": [{{"kind": "Other"}},\n{text}]}}'.encode(), "f")
    in_sequence = read_documents(f"[\n{text}]".encode(), "f")
    assert expected == meaning(as_json) == meaning(as_yaml) == meaning(block)
    assert expected == meaning(in_list) == meaning(in_sequence)
    assert lines(as_json, 0) == lines(as_yaml, 1) == lines(in_list, 1) == lines(in_sequence, 1)


@given(st.lists(spoiled(), max_size=5))
@settings(max_examples=100, deadline=None)
def test_keys_stay_unique_and_every_name_that_is_used_has_its_namespace(trees: list[Tree]) -> None:
    cluster = decode_objects(trees).cluster
    for part in (cluster.pods, cluster.policies):
        assert len({found.key for found in part}) == len(part)
    assert {found.namespace for found in cluster.pods} <= {found.name for found in cluster.namespaces}


@given(spoiled(), st.data())
@settings(max_examples=300, deadline=None)
def test_spoiled_bytes_give_objects_or_a_clean_error(tree: Tree, data: st.DataObject) -> None:
    text = json.dumps(tree) if data.draw(st.booleans()) else yaml.safe_dump(tree)
    raw = text.encode()
    cut = data.draw(st.integers(0, len(raw)))
    junk = data.draw(
        st.one_of(st.binary(max_size=4), st.sampled_from([b"{", b"[", b"&a ", b"*a", b"<<: ", b"\n\t", b"- "]))
    )
    raw = raw[:cut] + junk + raw[cut + data.draw(st.integers(0, 5)) :]
    try:
        decoded = read_documents(raw, "f")
    except UnreadableInput as error:
        assert error.line >= 1
        assert str(error).startswith("f:")
        assert "\n" not in str(error)
    else:
        assert all(str(problem).isprintable() for problem in decoded.problems)


def test_samples_cover_every_place() -> None:
    """The paths that the other tests walk: a hole here would make them blind."""
    walked: set[Path] = {tuple("*" if isinstance(step, int) else step for step in path) for path in SPEC}
    assert ("spec", "ingress", "*", "from", "*", "ipBlock", "except", "*") in walked
    assert ("spec", "egress", "*", "to", "*", "podSelector", "matchExpressions", "*", "operator") in walked
    assert ("spec", "ingress", "*", "ports", "*", "endPort") in walked
