"""Measurements with their recorded results. Every figure in the docs comes from here.

A benchmark is a module `<name>_bench` with one function, `measure(size: Size) -> Iterable[Figure]` (see `record`).
`run` finds them all, and writes `results/<name>.json`, the plots and the tables of docs/performance.md. "quick" sizes
are for the tests, which prove that a benchmark still works and say nothing about speed; "full" ones take minutes.
"""
