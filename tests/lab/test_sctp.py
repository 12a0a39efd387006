"""SCTP messages as bytes."""

from __future__ import annotations

import pytest

from lab import sctp
from lab.sctp import ABORT, INIT, INIT_ACK, Message


def test_the_checksum_is_castagnolis() -> None:
    assert sctp.crc32c(b"123456789") == 0xE3069283, "the check value in the catalogue of CRCs"


def test_an_init_on_the_wire() -> None:
    packet = Message(0x1234, 80, 0, INIT, 0xDEADBEEF).encode()
    assert packet[:8].hex() == "1234005000000000", "ports, and verification tag 0 (RFC 9260, 8.5.1)"
    assert packet[12:20].hex() == "01000014deadbeef", "type, flags, length, initiate tag"
    assert len(packet) == 32


@pytest.mark.parametrize("cookie", [b"a", b"shop/web-0", b""])
def test_what_is_encoded_is_decoded(cookie: bytes) -> None:
    asked = Message(40000, 80, 0, INIT, 7)
    for message in (asked, asked.answer(INIT_ACK, 9, cookie), asked.answer(ABORT)):
        packet = message.encode()
        assert len(packet) % 4 == 0
        assert sctp.decode(packet) == message
    assert asked.answer(ABORT).tag == 7, "the initiate tag of the INIT (RFC 9260, 8.4)"


def test_what_is_no_whole_message_is_nothing() -> None:
    packet = Message(40000, 80, 0, INIT, 7).encode()
    assert all(sctp.decode(packet[:size]) is None for size in range(len(packet)))
    assert all(
        sctp.decode(packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]) is None for at in range(len(packet))
    )
