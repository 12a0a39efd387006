"""CNI results: what each says, what is not trusted, and how they are followed as a runtime writes them."""

from __future__ import annotations

import base64
import json
import os
import queue
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from enforcer.attachment.cni_cache import AddressGone, AddressKnown, CacheEvent, Hints, Unreadable, parse, with_hints
from enforcer.attachment.cni_follow import CniResults, Folder, read
from policy.cidr import parse_address
from policy.model import Pod

WEB = Pod("shop", "web-0", {}, uid="u1", node="n1")
Json = dict[str, object]


def result(uid: str = "u1", address: str = "10.244.1.7/24", name: str = "web-0", **more: object) -> Json:
    """As libcni writes it for the bridge plugin."""
    arguments = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": name, "K8S_POD_UID": uid}
    config = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}
    whole: Json = {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": base64.b64encode(json.dumps(config).encode()).decode(),
        "ifName": "eth0",
        "networkName": "pods",
        "netns": "/var/run/netns/cni-1",
        "cniArgs": [[key, value] for key, value in arguments.items() if value],
        "capabilityArgs": {"dns": {}},
        "result": {
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "veth0123abcd", "mac": "02:00:00:00:00:02"},
                {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/var/run/netns/cni-1"},
            ],
            "ips": [{"address": address, "gateway": "10.244.1.1", "interface": 2}, {"address": "fd00::7/64"}],
        },
    }
    return whole | more


def packed(**fields: object) -> bytes:
    return json.dumps(result(**fields)).encode()  # type: ignore[arg-type]


def known(data: bytes, file: str = "pods-c1-eth0", written: int = 0) -> AddressKnown:
    found = parse(file, data, written)
    assert isinstance(found, AddressKnown), found
    return found


def test_result() -> None:
    addresses = (parse_address("10.244.1.7"), parse_address("fd00::7"))
    interfaces = ("cni0", "veth0123abcd")
    assert known(packed()) == AddressKnown("pods-c1-eth0", "shop", "web-0", "u1", addresses, interfaces, "bridge")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "cniCacheV2"}, "kind"),
        ({"uid": ""}, "names no pod"),
        ({"name": ""}, None),
        ({"address": "10.244.1/24"}, "not an IP address"),
        ({"address": 7}, "Expected `str`"),
        ({"ifName": "net1"}, None),
        ({"cniArgs": []}, None),
        ({"cniArgs": {"K8S_POD_NAME": "web-0"}}, "Expected `array"),
        ({"result": None}, ""),
        ({"config": "no base64"}, ""),
    ],
)
def test_result_that_is_otherwise(fields: dict[str, object], reason: str | None) -> None:
    """None: it is not about a pod's first interface. "": what is left says enough."""
    found = parse("file", packed(**fields))
    if reason is None:
        assert found is None
    elif reason:
        assert isinstance(found, Unreadable)
        assert reason in found.reason
    else:
        assert isinstance(found, AddressKnown)


def test_half_a_file_says_nothing() -> None:
    whole = packed()
    for end in range(len(whole)):
        assert isinstance(parse("file", whole[:end]), Unreadable)


def test_bytes_that_are_no_json() -> None:
    for data in (b"", b"\xff\xfe", b"[]", b"null", b"{}", b'{"kind": "\xff"}'):
        assert isinstance(parse("file", data), Unreadable)


def test_hint() -> None:
    hints = Hints([known(packed())])
    assert list(map(str, with_hints(WEB, hints, "n1").addresses)) == ["10.244.1.7", "fd00::7"]


@pytest.mark.parametrize(
    "other",
    [
        replace(WEB, uid="u2"),
        replace(WEB, uid=""),
        replace(WEB, name="web-1"),
        replace(WEB, namespace="bank"),
        replace(WEB, node="n2"),
        replace(WEB, node=""),
        replace(WEB, phase="Failed"),
        replace(WEB, host_network=True),
    ],
)
def test_hint_of_another_pod(other: Pod) -> None:
    assert with_hints(other, Hints([known(packed())]), "n1") is other


def test_hint_that_says_nothing_new_keeps_the_object() -> None:
    hints = Hints([known(packed()), known(packed(uid="u3", name="bare", result={}), "bare")])
    there = replace(WEB, addresses=(parse_address("fd00::7"), parse_address("10.244.1.7")))
    assert with_hints(there, hints, "n1") is there
    bare = replace(WEB, name="bare", uid="u3", addresses=there.addresses)
    assert with_hints(bare, hints, "n1") is bare


def test_restarted_sandbox() -> None:
    """Same pod, same UID: the old sandbox's address is still in the status, and may be another pod's by now."""
    old, new = known(packed(), "old", 1), known(packed(address="10.244.1.8/24"), "new", 2)
    pod = replace(WEB, addresses=old.addresses)
    for events in ([old, new], [new, old], [old, AddressGone("old"), new], [new, old, AddressGone("old")]):
        assert str(with_hints(pod, Hints(events), "n1").addresses[0]) == "10.244.1.8"
    hints = Hints([old, new])
    assert hints.apply(AddressGone("new")) == {"u1"}
    assert with_hints(pod, hints, "n1") is pod
    assert hints.apply(AddressGone("old")) == {"u1"}
    assert hints.apply(AddressGone("old")) == frozenset()
    assert hints.apply(Unreadable("old", "")) == frozenset()


def test_a_file_that_becomes_unreadable_is_trusted_no_more() -> None:
    hints = Hints([known(packed(), "file")])
    assert hints.apply(Unreadable("file", "half")) == {"u1"}
    assert with_hints(WEB, hints, "n1") is WEB


def write(folder: Path, name: str, data: bytes) -> None:
    """As Go's os.WriteFile: in place, so that half of it can be seen."""
    with (folder / name).open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        file.write(data[len(data) // 2 :])


def test_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "results")
    assert not list(folder.changes())
    (tmp_path / "results").mkdir()
    write(tmp_path / "results", "a", packed())
    (tmp_path / "results" / "link").symlink_to("a")
    (tmp_path / "results" / "net1").write_bytes(packed(ifName="net1"))
    assert [type(event) for event in folder.changes()] == [AddressKnown]
    assert not list(folder.changes())
    assert not list(folder.changes({"a"}))
    looked = (tmp_path / "results" / "a").stat()
    (tmp_path / "results" / "a").write_bytes(packed(uid="u9"))
    os.utime(tmp_path / "results" / "a", ns=(looked.st_atime_ns, looked.st_mtime_ns))
    assert [event.uid for event in folder.changes({"a"}) if isinstance(event, AddressKnown)] == ["u9"]
    (tmp_path / "results" / "a").write_bytes(b"{")
    assert [type(event) for event in folder.changes()] == [AddressGone, Unreadable]
    (tmp_path / "results" / "a").unlink()
    assert list(folder.changes()) == [AddressGone("a")], "it is not unreadable any more"
    assert not list(folder.changes())
    (tmp_path / "results" / "big").write_bytes(bytes((1 << 20) + 1))
    assert [event.file for event in folder.changes() if isinstance(event, Unreadable)] == ["big"]


def wait_for(events: queue.Queue[CacheEvent], wanted: type[CacheEvent], seconds: float = 10.0) -> CacheEvent:
    deadline = time.monotonic() + seconds
    while True:
        event = events.get(timeout=max(0.001, deadline - time.monotonic()))
        if isinstance(event, wanted):
            return event


@pytest.mark.parametrize("watching", [True, False], ids=["inotify", "polling"])
def test_follow(tmp_path: Path, watching: bool) -> None:
    events: queue.Queue[CacheEvent] = queue.Queue()
    write(tmp_path, "before", packed(uid="u0"))
    with CniResults(events.put, tmp_path, watching) as following:
        assert following.told_by_kernel == watching
        first = events.get_nowait()
        assert isinstance(first, AddressKnown), "what is there comes first"
        assert first.uid == "u0"
        write(tmp_path, "a", packed())
        found = wait_for(events, AddressKnown)
        assert isinstance(found, AddressKnown)
        assert found.uid == "u1"
        (tmp_path / "a").unlink()
        assert wait_for(events, AddressGone).file == "a"
        for number in range(40):
            write(tmp_path, f"b{number}", packed(uid=f"b{number}"))
        missing = {f"b{number}" for number in range(40)}
        while missing:  # a file that is found while it is written is told of twice
            missing.discard(wait_for(events, AddressKnown).file)
        (tmp_path / "b0").replace(tmp_path / "c")
        assert wait_for(events, AddressGone).file == "b0"
        assert following.alive


def test_follow_a_folder_that_comes_and_goes(tmp_path: Path) -> None:
    events: queue.Queue[CacheEvent] = queue.Queue()
    folder = tmp_path / "results"
    with CniResults(events.put, folder, poll=0.005) as following:
        for _ in range(2):
            assert not following.told_by_kernel
            folder.mkdir()
            write(folder, "a", packed())
            assert wait_for(events, AddressKnown).file == "a"
            (folder / "a").unlink()
            folder.rmdir()
            assert wait_for(events, AddressGone).file == "a"
            deadline = time.monotonic() + 10
            while following.told_by_kernel and time.monotonic() < deadline:
                time.sleep(0.001)


def test_no_folder(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []
