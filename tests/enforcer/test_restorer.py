"""A program that stays open, with programs in the place of iptables-restore that do as they are told."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcer.kernel import iptables
from enforcer.kernel.backend import Backend
from enforcer.kernel.iptables import Tables
from enforcer.kernel.restorer import Restorer
from policy.errors import HostRefused, KernelRejected

# Repeats comments as iptables-restore does with --verbose, counts lines as it does, and ends at a line that says BAD.
GOOD = r"""n=0; while IFS= read -r line; do n=$((n+1)); case $line in
"#"*) printf '%s\n' "$line";; BAD) echo "restore: line $n failed" >&2; exit 1;; COMMIT) echo $n >>"$0";; esac; done"""
MUTE = "while read -r line; do :; done"
TEXT = "*filter\n-A PF-x -j DROP\nCOMMIT\n"


@contextmanager
def restorer(script: str, path: Path, patience: float = 20) -> Iterator[Restorer]:
    found = Restorer(["sh", "-c", script, str(path)], patience)
    try:
        yield found
    finally:
        found.close()


def test_one_program_takes_transaction_after_transaction(tmp_path: Path) -> None:
    with restorer(GOOD, tmp_path / "done") as found:
        assert found.talks()
        first = found.process_id
        for _ in range(5):
            found.begin(TEXT)
            assert found.finish().code == 0
        assert found.talks() and found.process_id == first
    assert len((tmp_path / "done").read_text().split()) == 5 and not found.process_id


def test_the_line_at_fault_is_counted_from_the_start_of_its_transaction(tmp_path: Path) -> None:
    with restorer(GOOD, tmp_path / "done") as found:
        assert found.talks()
        found.begin(TEXT)
        assert found.finish().code == 0
        found.begin("*filter\nBAD\nCOMMIT\n")
        answer = found.finish()
        assert (answer.code, answer.said, answer.before) == (1, "restore: line 7 failed\n", 5)
        assert found.talks(), "another one is started"
        found.begin(TEXT)
        assert found.finish().code == 0


def test_one_that_was_killed_while_it_was_idle_is_not_missed(tmp_path: Path) -> None:
    with restorer(GOOD, tmp_path / "done") as found:
        assert found.talks()
        killed = found.process_id
        os.kill(killed, signal.SIGKILL)
        os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
        assert found.talks() and found.process_id not in (0, killed)
        found.begin(TEXT)
        assert found.finish().code == 0


def test_one_that_ends_under_way_has_failed_whatever_it_says(tmp_path: Path) -> None:
    for ending, code in (("exit 0", -1), ("kill -9 $$", -9)):
        script = GOOD.replace('COMMIT) echo $n >>"$0"', f"COMMIT) {ending}")
        with restorer(script, tmp_path / "done") as found:
            assert found.talks()
            found.begin(TEXT)
            assert found.finish().code == code


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    with restorer(GOOD.replace('COMMIT) echo $n >>"$0"', "COMMIT) exec sleep 60"), tmp_path / "done", 0.3) as found:
        assert found.talks()
        hung = found.process_id
        found.begin(TEXT)
        assert found.finish().said == "it did not answer in time"
        with pytest.raises(ProcessLookupError):
            os.kill(hung, 0)


def test_texts_larger_than_a_pipe(tmp_path: Path) -> None:
    """Both ways: all that is sent comes back."""
    with restorer("cat", tmp_path / "done") as found:
        assert found.talks()
        for _ in range(2):
            found.begin("x" * 79 + "\n" + ("y" * 79 + "\n") * 20_000)
            assert found.finish().code == 0


def test_a_program_that_repeats_no_comment_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcer.kernel.restorer.HELLO_WAIT", 0.2)
    with restorer(MUTE, tmp_path / "done") as found:
        assert not found.talks() and not found.process_id
        assert not found.talks(), "it is not asked again"


def test_a_missing_program_is_one_line() -> None:
    with pytest.raises(HostRefused, match="no-such-program is not installed"):
        Restorer(["no-such-program"], 1).talks()


def test_where_the_program_is_too_old_one_is_run_for_each_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may end at the end of its input, and not before: that is when it has done what it read."""
    monkeypatch.setattr("enforcer.kernel.restorer.HELLO_WAIT", 0.2)
    program = tmp_path / "iptables-nft-restore"
    program.write_text(f'#!/bin/sh\ncase "$*" in *--verbose*) {MUTE}; exit;; esac\ncat >>{tmp_path}/seen\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Tables(Backend("nft", (4,))) as tables:
        for _ in range(2):
            tables.begin(4, TEXT)()
    assert (tmp_path / "seen").read_text() == 2 * TEXT
    program.write_text("#!/bin/sh\ncat >/dev/null\necho 'line 2 failed' >&2\nexit 1\n")
    with Tables(Backend("nft", (4,))) as tables, pytest.raises(KernelRejected, match="-A PF-x -j DROP"):
        tables.restore(4, TEXT)


def test_the_programs_of_both_families_are_named() -> None:
    assert iptables.Tables(Backend("legacy", (4, 6)))._argv == {
        4: ["iptables-legacy-restore", "--noflush", "--wait", "30"],
        6: ["ip6tables-legacy-restore", "--noflush", "--wait", "30"],
    }


def test_one_that_somebody_kills_while_it_starts_says_nothing_of_the_next(tmp_path: Path) -> None:
    once = f'test -e "$0.killed" || {{ touch "$0.killed"; kill -9 $$; }}; {GOOD}'
    with restorer(once, tmp_path / "done") as found:
        assert not found.talks()
        assert found.talks()
        found.begin(TEXT)
        assert found.finish().code == 0
