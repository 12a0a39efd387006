"""Log lines: one for each change, with what was done and why. JSON for machines, or text for people, on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import msgspec

LogForm = Literal["json", "text"]
_log = logging.getLogger("podfence")


def set_up(form: LogForm, level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)s %(message)s"))
    _log.handlers[:] = [handler]
    _log.setLevel(level.upper())
    _log.propagate = False


def info(message: str, **fields: Any) -> None:
    _log.info(message, extra={"fields": fields})


def warning(message: str, **fields: Any) -> None:
    _log.warning(message, extra={"fields": fields})


def error(message: str, **fields: Any) -> None:
    _log.error(message, extra={"fields": fields})


def escaped(text: str) -> str:
    """`text` without what a terminal or a log's reader might act on: names come from the cluster."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        time = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}"
        head = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        return msgspec.json.encode(head | fields, enc_hook=str).decode()


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        rest = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        return escaped(super().format(record) + rest)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(map(str, value)) + "]"
    text = str(value)
    return f'"{text}"' if " " in text else text
