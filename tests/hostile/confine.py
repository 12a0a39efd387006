"""Runs a program under a seccomp profile, as a container runtime does: `PROFILE PROGRAM ARGUMENT…`.

By libseccomp, which every Debian has, since apt needs it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EPERM = 1
_COMPARISONS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
_NO_SUCH_CALL = -1


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("index", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


def confine(profile: Mapping[str, Any]) -> None:
    """From now on, for this process and all that it runs. What the profile names and this machine has not is passed
    over. OSError where the kernel or the library refuses."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_action(profile["defaultAction"], profile))))
    for entry in profile["syscalls"]:
        comparisons = [
            _Comparison(each["index"], _COMPARISONS[each["op"]], each["value"], each.get("valueTwo", 0))
            for each in entry.get("args", ())
        ]
        array = (_Comparison * len(comparisons))(*comparisons)
        for name in entry["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != _NO_SUCH_CALL:
                action = ctypes.c_uint32(_action(entry["action"], entry))
                _checked(library.seccomp_rule_add_array(context, action, number, len(comparisons), array), name)
    _checked(library.seccomp_load(context), "load")


def _action(name: str, entry: Mapping[str, Any]) -> int:
    if name == "SCMP_ACT_ALLOW":
        return _ALLOW
    assert name == "SCMP_ACT_ERRNO", name
    return _ERRNO | int(entry.get("errnoRet", entry.get("defaultErrnoRet", _EPERM)))


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"seccomp, {what}: {os.strerror(-result)}")


def main(argv: Sequence[str]) -> None:
    with open(argv[0], "rb") as file:
        profile = json.load(file)
    confine(profile)
    os.execvp(argv[1], argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
