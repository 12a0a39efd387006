"""`pods/exec` as an API server speaks it: a WebSocket on which each frame begins with the number of its channel."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

# What a command prints, what it complains of, and how it ends.
Ran = tuple[str, str, int]
Runs = Callable[[Sequence[str]], Ran]
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_STDOUT, _STDERR, _STATUS = 1, 2, 3
_BINARY, _CLOSE = 0x82, 0x88


def is_exec(path: str) -> bool:
    return urlsplit(path).path.endswith("/exec")


def pod_of(path: str) -> str:
    return urlsplit(path).path.split("/")[-2]


def serve_exec(handler: BaseHTTPRequestHandler, run: Runs) -> None:
    """Runs the command of the request, and says all of it at once."""
    key = handler.headers["Sec-WebSocket-Key"].encode()
    handler.send_response(101)
    for name, value in (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()),
        ("Sec-WebSocket-Protocol", "v4.channel.k8s.io"),
    ):
        handler.send_header(name, value)
    handler.end_headers()
    said, complaint, code = run(parse_qs(urlsplit(handler.path).query)["command"])
    status = {"metadata": {}, "status": "Success"}
    if code:
        causes = [{"reason": "ExitCode", "message": str(code)}]
        status = {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    for channel, text in ((_STDOUT, said), (_STDERR, complaint), (_STATUS, json.dumps(status))):
        if text:
            handler.wfile.write(_frame(_BINARY, bytes([channel]) + text.encode()))
    handler.wfile.write(_frame(_CLOSE, b"\x03\xe8"))
    handler.close_connection = True


def _frame(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes([kind, size]) + payload
    if size < 1 << 16:
        return bytes([kind, 126]) + size.to_bytes(2, "big") + payload
    return bytes([kind, 127]) + size.to_bytes(8, "big") + payload
