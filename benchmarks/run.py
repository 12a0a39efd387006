"""`python -m benchmarks.run`: runs every benchmark, or those that are named, and writes down what it found.

    --size quick|full   quick proves that they work, in seconds (default: full)
    --into FOLDER       where results and plots go (default: benchmarks/results; then docs/performance.md follows too)

Ends with 1 where a figure misses its target. Needs namespaces of its own: `tools/packets`, as `make bench` does.
"""

from __future__ import annotations

import argparse
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import benchmarks
from benchmarks import page
from benchmarks.plot import draw_all
from benchmarks.record import RESULTS, Report, Size, read, recorded, write

_SUFFIX = "_bench"


def names() -> list[str]:
    """Of all benchmarks: the modules here that are called `<name>_bench`."""
    found = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))


def run(name: str, size: Size) -> Report:
    module = import_module(f"benchmarks.{name}{_SUFFIX}")
    return recorded(name, size, lambda: module.measure(size))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measures podfence.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--size", choices=("quick", "full"), default="full")
    parser.add_argument("--into", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names()):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    missed = 0
    for name in options.names or names():
        report = run(name, options.size)
        path = write(report, options.into)
        for figure in report.figures:
            if not figure.met:
                print(f"  missed: {page.sentence(figure)}")
        missed += sum(not figure.met for figure in report.figures)
        print(f"{name}: {len(report.figures)} figures in {report.seconds} s: {path}", flush=True)
    reports = read(options.into)
    draw_all(reports, options.into)
    if options.into == RESULTS:
        page.update(reports)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
