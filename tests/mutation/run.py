"""Breaks each row of the semantics in the code, one mutant at a time, and shows which test notices.

    python -m tests.mutation.run [--only TEXT] [--jobs 2]

A mutant is killed if a test that names its row (or, where it says so, another) fails; the first that does is shown.
Exit code 1 if any survives or no longer fits the code.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).parents[2]
COPIED = ("policy", "compiler", "enforcer", "tests", "pyproject.toml")
TIMEOUT = 120


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose row or file contains TEXT")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    chosen = [each for each in mutants() if options.only in f"row {each.row} {each.file} {each.breaks}"]
    trees: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="podfence-mutants-") as folder:
        for number in range(options.jobs):
            trees.put(copy_tree(Path(folder, str(number))))
        healthy = run_tests(Path(folder, "0"), "test_row or test_peers_mistakes")
        if healthy.returncode != 0:
            print(f"the tests fail without any mutant:\n{healthy.stdout}", file=sys.stderr)
            return 1
        with ThreadPoolExecutor(options.jobs) as pool:
            results = pool.map(lambda mutant: tried(mutant, trees), chosen)
            return show(zip(chosen, results, strict=True))


def show(results: Iterator[tuple[Mutant, str]]) -> int:
    killed = survived = 0
    for mutant, noticed in results:
        by = re.search(r"(test_\w+)", noticed)
        verdict = f"killed by {by.group()}" if by else f"SURVIVED: {noticed}"
        killed, survived = killed + bool(by), survived + (not by)
        print(f"row {mutant.row:<3} {mutant.file:<28} {mutant.breaks:<62} {verdict}", flush=True)
    print(f"{killed + survived} mutants, {killed} killed, {survived} survived")
    return 1 if survived else 0


def tried(mutant: Mutant, trees: SimpleQueue[Path]) -> str:
    """The first test that fails with `mutant` in the tree; otherwise why there is none."""
    tree = trees.get()
    try:
        with broken(tree / mutant.file, mutant) as fits:
            if not fits:
                return "does not fit: its source is not there exactly once"
            done = run_tests(tree, mutant.selected)
    finally:
        trees.put(tree)
    failed = re.search(r"^FAILED \S+::(test_\w+)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return failed.group(1)
    return "no test noticed" if done.returncode == 0 else f"pytest ended with {done.returncode}"


@contextmanager
def broken(file: Path, mutant: Mutant) -> Iterator[bool]:
    healthy = file.read_text()
    fits = healthy.count(mutant.source) == 1
    try:
        if fits:
            file.write_text(healthy.replace(mutant.source, mutant.replacement))
        yield fits
    finally:
        file.write_text(healthy)


def run_tests(tree: Path, selected: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", "--tb=no"]
    # Bytecode is told apart by time and size only, which a mutant may share with what it replaces.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    argv += ["-k", selected, "tests/semantics"]
    return subprocess.run(argv, cwd=tree, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def copy_tree(to: Path) -> Path:
    to.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    return to


if __name__ == "__main__":
    sys.exit(main())
