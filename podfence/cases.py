"""The file of `podfence test`: cases read with the place of each field, and every mistake in it said at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from policy.errors import UnreadableFiles, UnreadableInput
from policy.labels import quoted
from policy.read_yaml import parse_yaml
from policy.source import Path, path_text
from policy.source_yaml import YamlPlace
from policy.validate import described, unknown_field

FIELDS = ("name", "from", "to", "port", "expect", "only")


class Case(Struct, frozen=True):
    """What is expected of every flow from each of `src` to each of `dst` at each of `ports` (no port: any port). With
    `only` those may reach `dst`, and nothing else may: `expect` is deny, of everything but `only`."""

    name: str
    src: tuple[str, ...]
    dst: tuple[str, ...]
    ports: tuple[str, ...]
    expect: Literal["allow", "deny"]
    only: tuple[str, ...] | None
    place: CasePlace


class CasePlace(Struct, frozen=True):
    """Where a case stands, and each of its fields."""

    file: str
    number: int
    locate: YamlPlace

    def of(self, field: str = "") -> str:
        """`cases.yaml:7: cases[1].to`."""
        path: Path = ("cases", self.number, *([field] if field else []))
        return f"{self.file}:{self.locate(path)}: {path_text(path)}"

    def __str__(self) -> str:
        return f"{self.file}:{self.locate(('cases', self.number))}"


def read_cases(data: bytes, file: str) -> list[Case]:
    """UnreadableInput, or UnreadableFiles for several mistakes, each with line and field."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UnreadableInput(file, 0, "not UTF-8") from None
    parsed = parse_yaml(text, file)
    if len(parsed.documents) != 1 or not isinstance(parsed.documents[0][1], Mapping):
        raise UnreadableInput(file, 1, "expected one mapping with a list of cases")
    tree = parsed.documents[0][1]
    place = YamlPlace(text, parsed.spans[id(tree)])
    reader = _Reader(file, place)
    reader.unknown(tree, (), ("cases",))
    entries = tree.get("cases")
    if not isinstance(entries, list) or not entries:
        reader.say(("cases",), "expected a list of cases")
        entries = []
    found = [reader.case(entry, number) for number, entry in enumerate(entries)]
    if reader.errors:
        raise reader.errors[0] if len(reader.errors) == 1 else UnreadableFiles(reader.errors)
    return [case for case in found if case]


class _Reader:
    def __init__(self, file: str, place: YamlPlace) -> None:
        self.file = file
        self.place = place
        self.errors: list[UnreadableInput] = []

    def say(self, path: Path, reason: str) -> None:
        self.errors.append(UnreadableInput(self.file, self.place(path), f"{path_text(path)}: {reason}"))

    def unknown(self, tree: Mapping[str, Any], path: Path, known: tuple[str, ...]) -> None:
        for key in tree:
            if key not in known:
                self.say((*path, key), unknown_field(key, known))

    def case(self, entry: Any, number: int) -> Case | None:
        path: Path = ("cases", number)
        if not isinstance(entry, Mapping):
            self.say(path, f"{described(entry)}, expected a mapping")
            return None
        self.unknown(entry, path, FIELDS)
        only = self.texts(entry, path, "only") if "only" in entry else None
        src, dst = self.texts(entry, path, "from"), self.texts(entry, path, "to")
        ports = self.texts(entry, path, "port")
        expect = entry.get("expect")
        if only is not None:
            if entry["only"] is None:
                self.say((*path, "only"), "null, expected a list of those that may; [] for nobody")
            for field in ("from", "expect"):
                if field in entry:
                    self.say((*path, field), "beside only, which says it: expected one or the other")
            expect = "deny"
        elif expect not in ("allow", "deny"):
            self.say((*path, "expect"), f"{described(expect)}, expected allow or deny")
        if only is None and not src:
            self.say((*path, "from"), "missing, expected where the flow begins")
        if not dst:
            self.say((*path, "to"), "missing, expected where the flow ends")
        if expect == "allow" and not ports:
            self.say((*path, "port"), "missing, expected the port that is to be allowed")
        name = entry.get("name", f"case {number + 1}")
        if not isinstance(name, str):
            self.say((*path, "name"), f"{described(name)}, expected text")
        wanted: Literal["allow", "deny"] = "allow" if expect == "allow" else "deny"
        return Case(str(name), src, dst, ports, wanted, only, CasePlace(self.file, number, self.place))

    def texts(self, entry: Mapping[str, Any], path: Path, field: str) -> tuple[str, ...]:
        """One text or a list of them; a port may be a number."""
        value = entry.get(field)
        if value is None:
            return ()
        found = []
        for each in value if isinstance(value, list) else [value]:
            number = field == "port" and isinstance(each, int) and not isinstance(each, bool)
            if not (number or (isinstance(each, str) and each)):
                expected = (
                    "a port such as 8080, 53/udp, http or icmp" if field == "port" else "a name, or a list of them"
                )
                self.say((*path, field), f"{quoted(str(each))}, expected {expected}")
            found.append(str(each))
        return tuple(found)
