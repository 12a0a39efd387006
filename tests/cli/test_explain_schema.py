"""The document that `explain -o json` prints is what its schema says, in every sort of answer.

After a change that is meant: `UPDATE_GOLDEN=1 python -m pytest tests/cli/test_explain_schema.py`. Within a version a
field may be added, none changed or removed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from podfence.answers import API_VERSION, Explanation
from tests.cli.test_explain_golden import CASES, GOLDEN, commands

FILE = Path(__file__).parents[2] / "docs/schemas/explain-v1.json"


def made() -> dict[str, object]:
    schema = msgspec.json.schema(Explanation)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"What `podfence explain -o json` prints, {API_VERSION}",
    }
    document: dict[str, object] = json.loads(json.dumps({**head, **schema}))
    return document


def test_the_schema_is_that_of_the_structs() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        FILE.write_text(json.dumps(made(), indent=1) + "\n")
    assert json.loads(FILE.read_text()) == made()


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("case", CASES)
def test_answers_are_of_the_schema(case: str, form: str) -> None:
    schema = json.loads(FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for command in commands(case)[:1]:
        arguments = [*shlex.split(command)[1:], "-o", form]
        fix = ["--fix"] if "--port" in command else []
        ran = subprocess.run(
            [sys.executable, "-m", "podfence", *arguments, *fix],
            cwd=GOLDEN,
            capture_output=True,
            text=True,
            check=False,
        )
        document = json.loads(ran.stdout) if form == "json" else yaml.safe_load(ran.stdout)
        jsonschema.validate(document, schema)
        assert document["api_version"] == API_VERSION
        assert document["verdict"] in ("allowed", "denied", "mixed", "unknown")


@pytest.mark.parametrize("broken", [{"verdict": "maybe"}, {"answers": {}}, {"api_version": 1}])
def test_the_schema_refuses_something(broken: dict[str, object]) -> None:
    good = {"api_version": API_VERSION, "src": "a", "dst": "b", "port": "80", "verdict": "denied", "answers": []}
    schema = json.loads(FILE.read_text())
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**good, **broken}, schema)
