"""Bytes of lists and watches, however they come."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import api_objects
from benchmarks.api_objects import World
from enforcer.cluster.news import Gone, Key, OwnNode
from enforcer.cluster.resources import NAMESPACES, PODS, POLICIES, own_node, read_object
from enforcer.cluster.watch_wire import LONGEST_LINE, Lines, NotJson, read_event, read_page, read_status, version_of
from enforcer.cluster.watchers import Watchers
from policy import decode
from policy.model import NetworkPolicy, Pod
from tests.api import history
from tests.api.follow import ALL, resource_of
from tests.api.server import status_body

WORLD = World(200, 20, 10)
BODIES = [api_objects.pod(WORLD, number) for number in range(20)]


@given(st.binary(max_size=200).map(lambda data: data.replace(b"\r", b"x")), st.lists(st.integers(0, 200)))
def test_lines_do_not_depend_on_how_they_were_cut(data: bytes, cuts: list[int]) -> None:
    bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    lines = Lines()
    found = [line for start, end in pairwise(bounds) for line in lines.feed(data[start:end])]
    *ended, _half = data.split(b"\n")
    assert found == [line for line in ended if line.strip()]


def test_a_line_that_never_ends_is_given_up() -> None:
    lines = Lines()
    with pytest.raises(NotJson, match="a line of more than 32 MB"):
        for _ in range(LONGEST_LINE // (1 << 20) + 2):
            list(lines.feed(b"x" * (1 << 20)))


def test_a_line_in_many_pieces_is_not_copied_for_each() -> None:
    lines = Lines()
    pieces = [b"x" * 100] * 50_000
    for piece in pieces:
        assert not list(lines.feed(piece))
    assert list(lines.feed(b"\n")) == [b"".join(pieces)]


@pytest.mark.parametrize("event", ["ADDED", "MODIFIED"])
def test_a_pods_line_means_the_same_whichever_way_it_is_written(event: str) -> None:
    for body in BODIES:
        straight = read_event(PODS, b'{"type":"%s","object":%s}' % (event.encode(), body))
        spaced = read_event(PODS, b'{ "object": %s , "type": "%s" }' % (body, event.encode()))
        assert straight.news == spaced.news == read_object(PODS, body)
        assert straight.news and isinstance(straight.news.event, Pod)
        assert version_of(straight.body) == version_of(spaced.body) == "123456789"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"<html>",
        b'{"type":"ADDED"}',
        b'{"object":{}}',
        b'{"type":7,"object":{}}',
        b'{"type":"ADDED","object":{"a":1}',
        b'{"type":"ADDED","object":' + BODIES[0] + b"]",
        b'{"type":"ADDED","object":' + BODIES[0] + b',"x"}',
        b'{"type":"ADDED","object":' + BODIES[0][:-1] + b"}",
        b'{"type":"MODIFIED","object":' + b"[" * 100_000 + b"}",
        b"\xff\xfe",
    ],
)
def test_what_is_no_event_is_not_json(line: bytes) -> None:
    with pytest.raises(NotJson):
        read_event(PODS, line)


def test_a_field_after_the_object_does_no_harm() -> None:
    line = b'{"type":"ADDED","object":%s,"more":{"a":"}"}}' % BODIES[0]
    assert read_event(PODS, line).news == read_object(PODS, BODIES[0])


def test_versions_are_those_of_the_metadata_and_no_other() -> None:
    body = json.dumps({"metadata": {"labels": {"resourceVersion": "1"}, "resourceVersion": "2", "name": "x"}}).encode()
    assert version_of(body) == "2"
    assert version_of(b'{"metadata":{}}') == version_of(b"[]") == version_of(b"no") == ""


def test_a_deletion_is_of_a_key_and_a_uid() -> None:
    line = b'{"type":"DELETED","object":{"metadata":{"name":"p","namespace":"s","uid":"u"}}}'
    news = read_event(PODS, line).news
    assert news and news.event == Gone(Key("s", "p"), "u")
    unnamed = read_event(PODS, b'{"type":"DELETED","object":{"metadata":{}}}').news
    assert unnamed and unnamed.event is None and unnamed.finding and unnamed.finding.key is None


def page(items: list[bytes], **meta: str) -> bytes:
    text = json.dumps({"resourceVersion": "5", **meta}).encode()
    return b'{"kind":"PodList","apiVersion":"v1","metadata":%s,"items":[%s]}' % (text, b",".join(items))


def test_a_page_in_one_go_is_the_same_as_object_by_object() -> None:
    one_odd = json.dumps({"metadata": {"name": "odd", "namespace": "s"}}).encode()  # neither spec nor status
    plain, mixed = read_page(PODS, page(BODIES)), read_page(PODS, page([one_odd, *BODIES]))
    assert plain.objects == mixed.objects[1:] == [read_object(PODS, body).event for body in BODIES]
    assert (plain.version, plain.token, plain.findings, mixed.findings) == ("5", "", [], [])
    assert read_page(PODS, page(BODIES, **{"continue": "next"})).token == "next"
    assert read_page(PODS, b'{"metadata":{"resourceVersion":"1"},"items":null}').objects == []


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"kind":"Status","metadata":{}}', page(BODIES)[:-3]])
@pytest.mark.parametrize("resource", [PODS, NAMESPACES, POLICIES])
def test_what_is_no_page_is_not_json(data: bytes, resource: object) -> None:
    with pytest.raises(NotJson):
        read_page(resource, data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "key", "reason"),
    [
        (b"5", None, "not an object"),
        (b'{"metadata":{"name":"p","namespace":"s","labels":7}}', Key("s", "p"), "labels"),
        (b'{"metadata":{"name":5,"namespace":"s"}}', None, "name"),
    ],
)
def test_a_pod_that_cannot_be_read_stays_what_it_was(body: bytes, key: Key | None, reason: str) -> None:
    changed = read_object(PODS, body)
    assert changed.event is None
    assert changed.finding and changed.finding.kept and changed.finding.key == key
    assert reason in str(changed.finding.problems[0])


def test_a_pod_with_a_port_that_cannot_be_read_is_used_without_it() -> None:
    tree = history.pod("s", "p")
    tree["spec"]["containers"][0]["ports"].append({"containerPort": 99999})
    changed = read_object(PODS, json.dumps(tree).encode())
    assert isinstance(changed.event, Pod) and len(changed.event.ports) == 1
    assert changed.finding and not changed.finding.kept


@pytest.mark.parametrize(
    "spec", ["7", '{"podSelector":5}', '{"podSelector":{"matchLabels":{"a":"b"}},"ingress":[{"form":[]}]}']
)
def test_a_policy_that_cannot_be_read_isolates(spec: str) -> None:
    body = f'{{"metadata":{{"name":"p","namespace":"s"}},"spec":{spec}}}'.encode()
    changed = read_object(POLICIES, body)
    assert isinstance(changed.event, NetworkPolicy) and changed.event.isolates
    assert not any(rule.understood for rule in changed.event.ingress)
    assert changed.finding and not changed.finding.kept and changed.finding.key == Key("s", "p")


def test_a_policy_whose_text_is_broken_isolates_its_namespace() -> None:
    body = b'{"metadata":{"name":"p","namespace":"s"},"spec":{"podSelector":{"matchLabels":{"a":"\xff"}}}}'
    changed = read_object(POLICIES, body)
    assert isinstance(changed.event, NetworkPolicy)
    assert changed.event.subjects.is_everything and len(changed.event.isolates) == 2
    assert changed.finding and not changed.finding.kept


def test_the_own_node_has_its_annotations_and_taints() -> None:
    changed = read_object(own_node("n1"), json.dumps(history.node("n1", a="b")).encode())
    assert isinstance(changed.event, OwnNode)
    assert changed.event.annotations == {"a": "b"}
    assert changed.event.taints == (("podfence.io/not-ready", "NoSchedule"),)
    assert str(changed.event.node.pod_cidrs[0]) == "10.0.0.0/24"


def test_a_status_says_what_it_can() -> None:
    status = read_status(status_body(410, "Expired", "old", "Why"))
    assert (status.code, status.reason, status.message, status.cause) == (410, "Expired", "old", "Why")
    assert read_status(b"<html>").code is None
    assert read_status(b'{"details":{"retryAfterSeconds":3}}').retry_after == 3


def test_nothing_is_made_by_threads_that_read_at_the_same_time() -> None:
    """msgspec crashes where two threads make a decoder of one struct at once. Found by the soak: one agent of hundreds
    ended by SIGSEGV when it began."""
    decode._reader.cache_clear()
    Watchers(ALL, None, print)  # type: ignore[arg-type]
    made = decode._reader.cache_info().misses
    odd_pod = {"spec": {"containers": [{"ports": 7}]}, "status": {"podIPs": "none"}}
    for kind, more in {"Namespace": {}, "Node": {"spec": {}}, "Pod": odd_pod, "NetworkPolicy": {"spec": {}}}.items():
        resource = resource_of(kind)  # type: ignore[arg-type]
        tree = {"kind": kind, "apiVersion": resource.api_version, "metadata": {"name": "x", "namespace": "a"}, **more}
        assert read_object(resource, json.dumps(tree).encode())
    assert made == decode._reader.cache_info().misses == 3
