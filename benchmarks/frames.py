"""Raw frames in batches: each the first packet of a flow of its own.

A batch is built once and given to the kernel in one call a thousand frames, so that the sender itself costs a fraction
of a microsecond a flow: a slower one would hide what the rules cost. On a veth the whole way of a frame (routing,
connection tracking, rules, up to the receiver's own veth) is walked within that call, on the core of the caller.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Sequence

from msgspec import Struct

from policy.cidr import Address

_CALL = 1024  # messages that the kernel takes at once (UIO_MAXIOV)
_PACKET_QDISC_BYPASS = 20
_SOL_PACKET = 263
_IPV4 = 0x0800
_libc = ctypes.CDLL(None, use_errno=True)


class Flow(Struct, frozen=True):
    """The first packet of a UDP flow, IPv4."""

    src: Address
    dst: Address
    src_port: int
    dst_port: int


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr; a packet socket that is bound needs no address."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovec", ctypes.c_void_p),
        ("iovec_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint32))


class Batch:
    """Frames to `mac`, one for each flow, ready to be sent."""

    def __init__(self, mac: str, flows: Sequence[Flow]) -> None:
        self.count = len(flows)
        head = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020000000001") + struct.pack("!H", _IPV4)
        frames = [head + packet(flow) for flow in flows]
        self._bytes = ctypes.create_string_buffer(b"".join(frames))
        self._iovecs = (_Iovec * len(frames))()
        self._messages = (_Message * len(frames))()
        at = ctypes.addressof(self._bytes)
        for frame, iovec, message in zip(frames, self._iovecs, self._messages, strict=True):
            iovec.base, iovec.length = at, len(frame)
            message.header.iovec, message.header.iovec_length = ctypes.addressof(iovec), 1
            at += len(frame)

    def send(self, sender: Sender) -> int:
        """Sends every frame; the nanoseconds of this thread that it took."""
        sock, count, size = sender.fileno(), self.count, ctypes.sizeof(_Message)
        start = ctypes.addressof(self._messages)
        done, began = 0, time.thread_time_ns()
        while done < count:
            sent: int = _libc.sendmmsg(sock, ctypes.c_void_p(start + done * size), min(_CALL, count - done), 0)
            if sent <= 0:
                number = ctypes.get_errno()
                raise OSError(number, f"sendmmsg: {os.strerror(number)}")
            done += sent
        return time.thread_time_ns() - began


class Sender:
    """A packet socket on `device` of the network namespace that the thread is in. Frames skip the queue."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self._socket.bind((device, 0))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


def packet(flow: Flow) -> bytes:
    """The IPv4 packet (RFC 791): UDP without a payload, whose checksum may be left out (RFC 768)."""
    ends = struct.pack("!II", flow.src.value, flow.dst.value)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 28, 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
    udp = struct.pack("!HHHH", flow.src_port, flow.dst_port, 8, 0)
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp


def _checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
