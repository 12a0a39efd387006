"""The syntax of names and labels, by apimachinery's `util/validation`. Each check returns what is wrong and what is
expected, or "" where nothing is. Cached, since the same few texts come back on thousands of objects."""

from __future__ import annotations

import re
from functools import lru_cache

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL.pattern}(\.{_DNS_LABEL.pattern})*")
_LABEL = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")


def quoted(text: str) -> str:
    """`text` for a message: control characters and terminal escapes spelled out, and cut where it is long."""
    return repr(cut(text, 100))


def cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def bare(text: str) -> str:
    """`text` for a message without quotes, where it can be trusted to be a name: others' characters spelled out."""
    return text if text.isprintable() else repr(text)[1:-1]


@lru_cache(maxsize=1 << 12)
def label_key_problem(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > 253 or not _DNS_SUBDOMAIN.fullmatch(prefix)):
        return f"not a label key: {quoted(key)}, expected a DNS name of at most 253 characters before the slash"
    if len(name) > 63 or not _LABEL.fullmatch(name):
        return (
            f"not a label key: {quoted(key)}, expected at most 63 letters, digits, '-', '_' or '.', "
            "with a letter or digit at both ends"
        )
    return ""


@lru_cache(maxsize=1 << 12)
def label_value_problem(value: str) -> str:
    if not value or (len(value) <= 63 and _LABEL.fullmatch(value)):
        return ""
    return (
        f"not a label value: {quoted(value)}, expected at most 63 letters, digits, '-', '_' or '.', "
        "with a letter or digit at both ends"
    )


def dns_label_problem(name: str) -> str:
    """DNS-1123 label: the name of a Namespace."""
    if len(name) <= 63 and _DNS_LABEL.fullmatch(name):
        return ""
    return (
        f"not a DNS label: {quoted(name)}, expected at most 63 lower-case letters, digits or '-', "
        "with a letter or digit at both ends"
    )


def dns_1035_label_problem(name: str) -> str:
    """DNS-1035 label: the name of a Service."""
    if len(name) <= 63 and _DNS_1035_LABEL.fullmatch(name):
        return ""
    return (
        f"not a DNS label: {quoted(name)}, expected at most 63 lower-case letters, digits or '-', "
        "with a letter first and a letter or digit last"
    )


def dns_subdomain_problem(name: str) -> str:
    """DNS-1123 subdomain: the name of nearly everything else."""
    if len(name) <= 253 and _DNS_SUBDOMAIN.fullmatch(name):
        return ""
    return (
        f"not a DNS name: {quoted(name)}, expected at most 253 lower-case letters, digits, '-' or '.', "
        "with a letter or digit at both ends"
    )


@lru_cache(maxsize=4096)
def port_name_problem(name: str) -> str:
    """IANA service name (RFC 6335, section 5.1), as ports are called."""
    if name.isascii() and name.isdigit():
        return f"a number in quotes: {quoted(name)}, expected {name[:20]} without quotes, or a port's name"
    good = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and re.search("[a-z]", name)
    if good and len(name) <= 15:
        return ""
    return (
        f"not a port name: {quoted(name)}, expected at most 15 lower-case letters, digits or single '-', "
        "with at least one letter"
    )
