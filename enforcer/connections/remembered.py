"""What an agent has to know of the time before it was started: whose the node's addresses were, which flows its first
sync spared, and by which interface each pod was found. Three files, since some change with pods, and the flows may be
many and change hardly ever.

The owners are there once a first sync is over, so that where they are missing the next sync is the first. The files
live and die with the connection table: below `/run`. Each is written whole or not at all. Any other content than ours
is as good as no file: then nothing is known, and nothing ends for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from enforcer.attachment.leaving import Who
from enforcer.connections.concern import Owners
from enforcer.kernel.conntrack_wire import Identity
from policy.cidr import Address, parse_address
from policy.errors import HostRefused

DEFAULT_FOLDER = Path("/run/podfence/flows")


class Remembered(Struct, frozen=True):
    """`owners` of the node's addresses; `unpurged` ones had another owner, whose flows may still be there."""

    owners: Owners
    unpurged: frozenset[Address] = frozenset()


class _Written(Struct, forbid_unknown_fields=True):
    owners: dict[str, str]
    unpurged: list[str]


_decode = msgspec.json.Decoder(_Written).decode
_decode_interfaces = msgspec.msgpack.Decoder(dict[Who, int]).decode
_decode_spared = msgspec.msgpack.Decoder(frozenset[tuple[int, bytes]]).decode


class Memory:
    """The files in `folder`; None keeps nothing, as for a node that is not followed."""

    def __init__(self, folder: Path | None = DEFAULT_FOLDER) -> None:
        self._folder = folder

    def load(self) -> Remembered | None:
        """None where nothing is known."""
        try:
            found = _decode(self._read("owners.json"))
            owners = {parse_address(text): owner for text, owner in found.owners.items()}
            return Remembered(owners, frozenset(map(parse_address, found.unpurged)))
        except (OSError, msgspec.MsgspecError, ValueError):
            return None

    def load_spared(self) -> frozenset[Identity]:
        try:
            return _decode_spared(self._read("spared"))
        except (OSError, msgspec.MsgspecError):
            return frozenset()

    def save(self, known: Remembered) -> None:
        """HostRefused where it can't be written."""
        owners = {str(address): owner for address, owner in known.owners.items()}
        written = _Written(owners, sorted(map(str, known.unpurged)))
        self._write("owners.json", msgspec.json.encode(written))

    def save_spared(self, spared: frozenset[Identity]) -> None:
        """HostRefused where it can't be written."""
        self._write("spared", msgspec.msgpack.encode(spared))

    def load_interfaces(self) -> dict[Who, int]:
        """Indexes by key and UID of pods."""
        try:
            return _decode_interfaces(self._read("interfaces"))
        except (OSError, msgspec.MsgspecError, ValueError):
            return {}

    def save_interfaces(self, last: Mapping[Who, int]) -> None:
        """HostRefused where it can't be written."""
        self._write("interfaces", msgspec.msgpack.encode(last))

    def _read(self, name: str) -> bytes:
        if self._folder is None:
            raise FileNotFoundError
        return (self._folder / name).read_bytes()

    def _write(self, name: str, content: bytes) -> None:
        if self._folder is None:
            return
        beside = self._folder / f"{name}.new"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(content)
            beside.replace(self._folder / name)
        except OSError as error:
            raise HostRefused(f"{self._folder / name} can't be written: {error.strerror}") from None
