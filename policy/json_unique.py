"""Duplicate keys in JSON, which JSON readers settle silently, found at the speed of a large dump (semantics, row 39).

In a file of at most a megabyte, all that people write by hand, every key of every object is checked, and in any larger
file every key of a NetworkPolicy and of the list around the objects. Of other objects in larger files, which programs
write, only the keys at these levels are: the object itself, `metadata` and its `labels`, `spec`, `status`.

The fast check counts quotation marks: reading into a mapping keeps one value for each key, so that of an object with
a key twice more marks are written than the kept keys and values have. It never misses one at its levels; what it
cannot tell (a quotation mark in a key, a field that no object of ours has) is parsed whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain

import msgspec
from msgspec import Raw, Struct

from policy.read_json import JsonPlace, parse_json

# ruff: noqa: N815 (the API's own spelling)

SMALL = 1 << 20
_Fields = dict[str, Raw]
_ABSENT = Raw(b"")


class _Object(Struct, gc=False):
    """Everything at the top of the kinds that are read, but for policies."""

    metadata: _Fields | None = None
    spec: _Fields | None = None
    status: _Fields | None = None
    apiVersion: Raw = _ABSENT
    kind: Raw = _ABSENT
    template: Raw = _ABSENT
    addressType: Raw = _ABSENT
    endpoints: Raw = _ABSENT
    ports: Raw = _ABSENT


_OBJECT = msgspec.json.Decoder(_Object)


def check_object(body: Raw, place: JsonPlace, file: str) -> None:
    """UnreadableInput where a key stands twice in the object `body`, which stands at `place`, at the levels above."""
    if not _is_unique(body, place.data.count(b'"', place.start, place.end)):
        parse_json(body, file, place.line)


def check_list(data: bytes, items: Iterable[tuple[int, int]], file: str) -> None:
    """The same of the list in `data`, whatever its `items`, given by their start and end, hold."""
    around, end = [], 0
    for start, next_end in items:
        around.append(data[end:start])
        end = next_end
    # An item left out is null, so that what stands around them is JSON itself.
    parse_json(b"null".join([*around, data[end:]]), file)


def _is_unique(body: Raw, marks: int) -> bool:
    """Whether the object of `marks` quotation marks surely has no key twice."""
    try:
        read = _OBJECT.decode(body)
        metadata, spec, status = read.metadata or {}, read.spec or {}, read.status or {}
        labels = metadata.get("labels")
        if labels is not None and not _labels_are_unique(bytes(labels)):
            return False
    except msgspec.DecodeError:
        return False
    others = (read.apiVersion, read.kind, read.template, read.addressType, read.endpoints, read.ports)
    values = b"".join(chain(others, metadata.values(), spec.values(), status.values()))
    keys = len(metadata) + len(spec) + len(status)
    keys += sum(each is not _ABSENT for each in others)
    keys += (read.metadata is not None) + (read.spec is not None) + (read.status is not None)
    return 2 * keys + values.count(b'"') == marks


@lru_cache(maxsize=1 << 12)
def _labels_are_unique(text: bytes) -> bool:
    fields = msgspec.json.decode(text, type=_Fields | None) or {}
    return 2 * len(fields) + b"".join(fields.values()).count(b'"') == text.count(b'"')
