"""`policy` and `compiler` can do no I/O: they import from a short list, and call no builtin that reaches out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = {
    *("__future__", "abc", "bisect", "collections", "difflib", "enum", "functools", "graphlib", "hashlib", "heapq"),
    *("ipaddress", "itertools", "json", "math", "operator", "re", "typing", "weakref"),
    *("msgspec", "networkx", "yaml", "policy", "compiler"),
}
REACHES_OUT = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}
MODULES = sorted(path for package in ("policy", "compiler") for path in (ROOT / package).rglob("*.py"))


def impurities(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names if each.name.partition(".")[0] not in PURE)
            case ast.ImportFrom(module=module, level=level):
                if level or (module or "").partition(".")[0] not in PURE:
                    yield f"{'.' * level}{module or ''}"
            case ast.Call(func=ast.Name(id=name)) if name in REACHES_OUT:
                yield f"{name}()"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_pure(path: Path) -> None:
    assert not list(impurities(path.read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import os.path as p",
        "from time import sleep",
        "def f():\n    from socket import socket",
        "from . import x",
        "open('x')",
        "import concurrent.futures",
    ],
)
def test_what_is_impure_is_found(source: str) -> None:
    assert list(impurities(source))
