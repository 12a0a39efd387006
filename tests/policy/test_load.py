"""Files, folders and standard input."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from podfence.load import load
from policy.errors import PodfenceError, UnreadableFiles, UnreadableInput, UsageError


def pod(name: str) -> str:
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "sub/d.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(pod(path.stem))
    return tmp_path


def names(*paths: str, recursive: bool = True, stdin: bytes | None = None) -> list[str]:
    loaded = load(paths, recursive, io.BytesIO(stdin) if stdin is not None else None)
    return [pod.name for pod in loaded.cluster.pods]


@pytest.mark.usefixtures("folder")
def test_folders_are_read_in_order_and_on_request_below() -> None:
    (Path("c.json")).write_text('{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}}')
    assert names(".") == ["a", "b", "c", "d"]
    assert names(".", recursive=False) == ["a", "b", "c"]
    assert load(["sub", "b.yaml"]).files == ("sub/d.yaml", "b.yaml")


@pytest.mark.usefixtures("folder")
def test_a_file_is_read_whatever_it_is_called() -> None:
    assert names("notes.txt") == ["notes"]


@pytest.mark.usefixtures("folder")
def test_what_is_given_twice_is_read_once() -> None:
    Path("c.json").unlink()
    Path("link.yaml").symlink_to("b.yaml")
    loaded = load(["./b.yaml", ".", "b.yaml", "sub", "link.yaml"])
    assert loaded.files == ("./b.yaml", "a.yml", "sub/d.yaml")
    assert loaded.problems == ()


def test_standard_input() -> None:
    assert names("-", stdin=pod("a").encode()) == ["a"]
    with pytest.raises(UnreadableInput, match=r"^<stdin>:2: "):
        names("-", stdin=b"a: 1\n- b")


@pytest.mark.usefixtures("folder")
def test_objects_of_several_files_meet() -> None:
    Path("c.json").unlink()
    Path("sub/e.yaml").write_text(pod("a").replace("a}", "a, labels: {app: web}}"))
    loaded = load(["."])
    assert [str(problem) for problem in loaded.problems] == [
        "sub/e.yaml:1: Pod default/a: stands twice, first at a.yml:1, expected once"
    ]


def message(*paths: str) -> tuple[type[PodfenceError], int, str]:
    with pytest.raises(PodfenceError) as caught:
        load(paths)
    return type(caught.value), caught.value.exit_code, str(caught.value)


def test_a_path_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message("no/such") == (UsageError, 2, "no/such: no such file or folder")
    assert message("no\x1b/such") == (UsageError, 2, "no\\x1b/such: no such file or folder")


@pytest.mark.parametrize("text", ["", "# nothing\n---\n", "[]", '{"kind": "List", "items": []}'])
def test_a_path_without_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("f.yaml").write_text(text)
    Path("empty").mkdir()
    for path in ("f.yaml", ".", "empty"):
        assert message(path) == (UnreadableInput, 4, f"{path}: holds no object, expected YAML or JSON of the API")


@pytest.mark.usefixtures("folder")
def test_every_file_that_cannot_be_parsed_is_named_at_once() -> None:
    Path("b.yaml").write_text("a: 1\na: 2\n")
    Path("sub/d.yaml").write_bytes(b"a: 1\nb: \xff\n")
    Path("c.json").write_text('{"a":\n1')
    assert message(".") == (
        UnreadableFiles,
        4,
        "\n".join(
            [
                "b.yaml:2: the key 'a' stands twice in one mapping, first on line 1",
                "c.json:2: not JSON: it ends in the middle of a value",
                "sub/d.yaml:2: not UTF-8: byte 0xff",
            ]
        ),
    )


@pytest.mark.usefixtures("folder")
def test_what_is_no_file_is_left_out_of_a_folder() -> None:
    os.mkfifo("sub/pipe.yaml")
    Path("sub/folder.yaml").symlink_to("..")
    assert load(["sub"]).files == ("sub/d.yaml",)
    Path("sub/d.yaml").unlink()
    assert message("sub")[2] == "sub: holds no object, expected YAML or JSON of the API"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("target", "reason"),
    [("loop.yaml", "Too many levels of symbolic links"), ("gone.yaml", "No such file or directory")],
)
def test_a_link_in_a_folder_that_leads_nowhere_is_an_error(target: str, reason: str) -> None:
    Path("sub/loop.yaml").symlink_to(target)
    assert message("sub") == (UnreadableInput, 4, f"sub/loop.yaml: cannot be read: {reason}")


def test_a_file_that_cannot_be_read() -> None:
    # Readable by its mode, for root too, and yet refused.
    assert message("/proc/self/mem") == (UnreadableInput, 4, "/proc/self/mem: cannot be read: Input/output error")
