"""What a plain YAML scalar means to Kubernetes: YAML 1.1's words and numbers, as go-yaml v2 resolves them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {form: True for word in ("y", "yes", "true", "on") for form in (word, word.title(), word.upper())}
_WORDS |= {form: False for word in ("n", "no", "false", "off") for form in (word, word.title(), word.upper())}
_HINTS = frozenset("yYnNtTfFoO~0123456789+-.")
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 60


def resolve(text: str) -> Any:
    """What a plain scalar means: null, a boolean, a number, or the text itself. Dates stay text."""
    if text and text[0] not in _HINTS:
        return text
    return _resolve_hinted(text)


@lru_cache(maxsize=4096)
def _resolve_hinted(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    plain = text.replace("_", "")
    if len(plain) > _LONGEST_NUMBER:
        return text
    if match := _INTEGER.fullmatch(plain):
        sign, *digits = match.groups()
        base, number = next((base, part) for base, part in zip((16, 8, 2, 10), digits, strict=True) if part)
        return -int(number, base) if sign == "-" else int(number, base)
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        # The way to the API server leads through JSON, where Go writes a whole float without a point.
        return int(value) if value.is_integer() and abs(value) < 1e21 else value if abs(value) < float("inf") else text
    return text
