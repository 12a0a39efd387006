"""A folder of manifests, followed: the same messages as from an API server."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from compiler.changes import Deleted
from enforcer.cluster.heard import Heard
from enforcer.cluster.news import News, Trouble
from enforcer.cluster.watch_files import FileWatcher
from podfence.load import load
from policy.errors import Problem
from policy.model import Cluster, NetworkPolicy, Pod
from tests.api.history import namespace, node, pod, policy


def written(folder: Path, name: str, kind: str, tree: dict[str, Any], at: float = 0) -> None:
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "v1"
    (folder / name).write_text(json.dumps({"apiVersion": version, "kind": kind, **tree}))
    if at:
        os.utime(folder / name, (at, at))


class Folder:
    """A watcher whose clock is far ahead of the files', so that none of them is fresh, but where it is set back."""

    def __init__(self, path: Path) -> None:
        self.path, self.heard, self.reads = path, Heard(), 0
        self.news: list[News] = []
        self.events: list[object] = []
        self.time, self.passed = 1e10, 7.0
        self.watcher = FileWatcher(
            [str(path)], self.read, "n1", self.put, clock=lambda: self.passed, now=lambda: self.time
        )

    def read(self) -> tuple[Cluster, Sequence[Problem]]:
        self.reads += 1
        loaded = load([str(self.path)])
        return loaded.cluster, loaded.problems

    def put(self, message: News) -> None:
        self.news.append(message)
        self.events += self.heard.take(message)

    def turn(self) -> list[object]:
        self.events = []
        self.watcher.turn()
        return self.events


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    written(tmp_path, "pod.json", "Pod", pod("a", "x"))
    written(tmp_path, "policy.json", "NetworkPolicy", policy("a", "p", app="web"))
    written(tmp_path, "node.json", "Node", node("n1"))
    return Folder(tmp_path)


def test_everything_comes_at_first_and_then_what_differs(folder: Folder) -> None:
    first = folder.turn()
    assert [type(each).__name__ for each in first] == ["Namespace", "NetworkPolicy", "Pod"]
    assert folder.heard.synced and folder.heard.node and folder.heard.node.name == "n1"
    assert folder.turn() == [] and folder.reads == 1
    written(folder.path, "more.json", "Namespace", namespace("a", team="x"))
    (changed,) = folder.turn()
    assert changed.labels["team"] == "x"  # type: ignore[attr-defined]
    (folder.path / "policy.json").unlink()
    assert folder.turn() == [Deleted("NetworkPolicy", "a", "p")]
    assert folder.reads == 3


def test_a_file_that_is_touched_changes_nothing(folder: Folder) -> None:
    folder.turn()
    text = (folder.path / "pod.json").read_text()
    (folder.path / "pod.json").write_text(text + "\n")
    assert folder.turn() == [] and folder.reads == 2


def test_what_cannot_be_parsed_leaves_everything_as_it_was(folder: Folder) -> None:
    folder.turn()
    good = (folder.path / "policy.json").read_text()
    (folder.path / "policy.json").write_text(good[:-5])
    assert folder.turn() == []
    trouble = folder.heard.troubles["NetworkPolicy"]
    assert "policy.json:1: not JSON" in trouble.reason and trouble.since == 7.0
    assert set(folder.heard.troubles) == {"Node", "Namespace", "NetworkPolicy", "Pod"}
    folder.turn()
    assert sum(isinstance(each, Trouble) for each in folder.news) == 4, "said once"
    assert [found.name for found in folder.heard.objects("NetworkPolicy")] == ["p"]
    (folder.path / "policy.json").write_text(good)
    assert folder.turn() == [] and not folder.heard.troubles


def test_a_folder_that_goes_leaves_everything_as_it_was(folder: Folder) -> None:
    folder.turn()
    for file in folder.path.iterdir():
        file.unlink()
    assert folder.turn() == [] and "holds no object" in folder.heard.troubles["Pod"].reason
    folder.path.rmdir()
    assert folder.turn() == [] and "no such file" in folder.heard.troubles["Pod"].reason
    assert len(list(folder.heard.objects("Pod"))) == 1


def test_a_wrong_object_isolates_and_is_named(folder: Folder) -> None:
    folder.turn()
    tree = policy("a", "p", app="web")
    tree["spec"]["ingress"][0]["form"] = []
    written(folder.path, "policy.json", "NetworkPolicy", tree)
    (changed,) = folder.turn()
    assert isinstance(changed, NetworkPolicy) and not changed.ingress[0].understood
    (finding,) = folder.heard.findings["NetworkPolicy"].values()
    assert "form" in str(finding.problems[0]) and not finding.kept


def test_a_file_that_was_written_just_now_is_read_once_more(folder: Folder) -> None:
    """Within a tick of the file system's clock a second change of the same size would not show."""
    folder.time = (folder.path / "pod.json").stat().st_mtime + 1
    folder.turn()
    folder.turn()
    assert folder.reads == 2
    folder.time += 5
    folder.turn()
    folder.turn()
    assert folder.reads == 3


def test_files_of_times_to_come_are_not_read_for_ever(folder: Folder) -> None:
    """As after the node's clock was set back: they are fresh for as long as any other file is."""
    folder.time = (folder.path / "pod.json").stat().st_mtime - 5 * 3600
    for _ in range(20):
        folder.turn()
        folder.passed += 1
    assert folder.reads == 4
    written(folder.path, "pod.json", "Pod", pod("a", "x", address="10.9.9.9"))
    assert folder.turn() != []
    assert folder.turn() == [] and folder.reads == 6


def test_a_defect_in_reading_is_trouble_and_not_the_end(folder: Folder) -> None:
    folder.turn()
    folder.watcher._read = lambda: 1 / 0  # type: ignore[assignment, return-value]
    written(folder.path, "pod.json", "Pod", pod("a", "x", address="10.9.9.9"))
    assert folder.turn() == [] and "ZeroDivisionError" in folder.heard.troubles["Pod"].reason
    folder.watcher._read = folder.read
    written(folder.path, "pod.json", "Pod", pod("a", "x", address="10.9.9.10"))
    (changed,) = folder.turn()
    assert isinstance(changed, Pod) and str(changed.addresses[0]) == "10.9.9.10"


def test_links_that_are_switched_as_config_maps_do_are_changes(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        written(tmp_path / f"..{version}", "pod.json", "Pod", pod("a", "x", address=f"10.0.0.{version}"))
    (tmp_path / "..data").symlink_to("..1")
    shown = tmp_path / "shown"
    shown.symlink_to("..data")
    folder = Folder(shown)
    folder.turn()
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    (changed,) = folder.turn()
    assert isinstance(changed, Pod) and str(changed.addresses[0]) == "10.0.0.2"
