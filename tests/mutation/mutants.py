"""The mutants of `mutants.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

DATA = Path(__file__).with_name("mutants.yaml")


@dataclass(frozen=True)
class Mutant:
    row: int
    breaks: str
    file: str
    source: str
    replacement: str
    tests: str = ""

    @property
    def selected(self) -> str:
        """The tests that must notice, as pytest's -k takes it."""
        return self.tests or f"test_row_{self.row:02}_"


def mutants() -> list[Mutant]:
    return [Mutant(**fields) for fields in yaml.safe_load(DATA.read_text())]
