"""JUnit's XML, as CI systems read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from xml.etree import ElementTree

from msgspec import Struct

from podfence.output import printable


class Tested(Struct, frozen=True):
    """One test: `error` is for what could not be known."""

    name: str
    place: str
    outcome: Literal["passed", "failure", "error"] = "passed"
    message: str = ""
    detail: str = ""


def document(suite: str, tests: Sequence[Tested]) -> str:
    """Control characters, which XML can't hold, are spelled out."""
    counts: dict[str, str] = {kind: str(sum(each.outcome == one for each in tests)) for kind, one in _COUNTED}
    root = ElementTree.Element("testsuites")
    top = ElementTree.SubElement(root, "testsuite", {"name": suite, "tests": str(len(tests)), **counts})
    for each in tests:
        case = ElementTree.SubElement(top, "testcase", name=printable(each.name), classname=printable(each.place))
        if each.outcome != "passed":
            said = ElementTree.SubElement(case, each.outcome, message=printable(each.message))
            said.text = "\n".join(map(printable, each.detail.splitlines()))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode")


_COUNTED = (("failures", "failure"), ("errors", "error"))
