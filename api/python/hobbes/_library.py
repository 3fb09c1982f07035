"""libhobbes by ctypes: its functions, the records of the node's mirror, and its errors."""

from __future__ import annotations

import ctypes
import math
import os
import time
from collections.abc import Iterator
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint
from ctypes import c_uint16, c_uint32, c_uint64, c_ubyte, c_void_p
from typing import Any


class Error(OSError):
    """What libhobbes could not do: `errno`, and one line that says why and what to do."""


class EnclaveBody(ctypes.Structure):
    _fields_ = [
        ("kind", c_uint32),
        ("pid", c_int32),
        ("start_ticks", c_uint64),
        ("cpus", c_uint64 * 16),
        ("memory", c_uint64 * 16),
        ("heartbeat_ns", c_uint64),
        ("created_ns", c_uint64),
        ("exit_status", c_int32),
        ("flags", c_uint32),
    ]


class SegmentBody(ctypes.Structure):
    _fields_ = [
        ("size", c_uint64),
        ("page_size", c_uint64),
        ("inode", c_uint64),
        ("owner_start_ticks", c_uint64),
        ("owner_pid", c_int32),
        ("owner_fd", c_int32),
        ("mode", c_uint32),
        ("attachments", c_uint32),
        ("flags", c_uint32),
        ("listeners", c_uint32),
        ("listeners_version", c_uint64),
        ("snapshot_of", c_uint64),
    ]


class Body(ctypes.Union):
    _fields_ = [("enclave", EnclaveBody), ("segment", SegmentBody), ("bytes", c_ubyte * 336)]


class Record(ctypes.Structure):
    """One record of the mirror, version 1 of its format (abi/nis.h, docs/NIS.md)."""

    _fields_ = [
        ("id", c_uint64),
        ("type", c_uint16),
        ("size", c_uint16),
        ("state", c_uint32),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("scope", c_uint64),
        ("changed_ns", c_uint64),
        ("enclave", c_uint64),
        ("name", c_char * 128),
        ("body", Body),
    ]


class Change(ctypes.Structure):
    _fields_ = [
        ("sequence", c_uint64),
        ("id", c_uint64),
        ("type", c_uint16),
        ("kind", c_uint16),
        ("state", c_uint32),
        ("time_ns", c_uint64),
        ("enclave", c_uint64),
        ("uid", c_uint32),
        ("exit_status", c_int32),
        ("name", c_char * 80),
    ]


assert ctypes.sizeof(Record) == 512 and ctypes.sizeof(Change) == 128

Handler = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_size_t, c_int)

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "hobbes_error": (c_char_p, []),
    "hobbes_self": (c_char_p, []),
    "hobbes_nis_open": (c_void_p, [c_char_p]),
    "hobbes_nis_close": (None, [c_void_p]),
    "hobbes_nis_by_id": (c_int, [c_void_p, c_uint64, POINTER(Record)]),
    "hobbes_nis_next": (c_int, [c_void_p, c_int, POINTER(c_uint64), POINTER(Record)]),
    "hobbes_nis_sequence": (c_uint64, [c_void_p]),
    "hobbes_nis_wait": (c_int, [c_void_p, POINTER(c_uint64), POINTER(Change), c_int]),
    "hobbes_segment_make": (c_int64, [c_char_p, c_size_t, c_uint, c_uint, POINTER(c_void_p)]),
    "hobbes_segment_search": (c_int64, [c_char_p]),
    "hobbes_segment_search_of": (c_int64, [c_char_p, c_uint]),
    "hobbes_segment_get": (c_int64, [c_int64, c_int]),
    "hobbes_segment_size": (c_int64, [c_int64]),
    "hobbes_segment_attach": (c_void_p, [c_int64, c_size_t, c_size_t]),
    "hobbes_segment_detach": (c_int, [c_void_p]),
    "hobbes_segment_release": (c_int, [c_int64]),
    "hobbes_segment_listen": (c_int, [c_int64]),
    "hobbes_segment_wait": (c_int, [c_int64, c_int]),
    "hobbes_segment_ring": (c_int, [c_int64]),
    "hobbes_segment_remove": (c_int, [c_int64]),
    "hobbes_segment_snapshot": (
        c_int64,
        [c_int64, c_char_p, c_uint, c_uint, c_int, POINTER(c_void_p)],
    ),
    "hobbes_client_open": (c_void_p, [c_char_p, c_void_p, c_int]),
    "hobbes_client_issue": (
        c_int64,
        [c_void_p, c_char_p, c_char_p, c_size_t, c_int, Handler, c_void_p],
    ),
    "hobbes_client_poll": (c_int, [c_void_p, c_int]),
    "hobbes_client_cancel": (None, [c_void_p, c_int64]),
    "hobbes_client_close": (None, [c_void_p]),
}


def _load() -> ctypes.CDLL:
    """The library of $HOBBES_LIBRARY, else the installed one."""
    path = os.environ.get("HOBBES_LIBRARY", "libhobbes.so.0")
    try:
        library = ctypes.CDLL(path, use_errno=True)
    except OSError as error:
        raise ImportError(f"{error}; install Hobbes, or set HOBBES_LIBRARY to the library's path"
                          ) from error
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


lib = _load()


def last_error(number: int) -> Error:
    return Error(number, lib.hobbes_error().decode(errors="replace"))


def encoded(name: str) -> bytes:
    """A name for C, which would end at a zero byte."""
    if "\0" in name:
        raise ValueError("a name has no zero byte")
    return name.encode()


def milliseconds(seconds: float) -> int:
    """For C: rounded up, so that a short time is not none; never what C takes for "for ever"."""
    if seconds < 0:
        raise ValueError("a time is not negative")
    return min(math.ceil(seconds * 1000), 2**31 - 1)


def slices(timeout: float | None) -> Iterator[int]:
    """Milliseconds to wait at a time, so that Ctrl-C is noticed, until `timeout` seconds are over;
    None: for ever."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = 0.5 if end is None else max(end - time.monotonic(), 0)
        yield milliseconds(min(left, 0.5))
        if end is not None and time.monotonic() >= end:
            return


def checked(result: int) -> int:
    """A result of the library's that is not negative."""
    if result < 0:
        raise last_error(-result)
    return result


def checked_pointer(result: int | None) -> int:
    if not result:
        raise last_error(ctypes.get_errno())
    return result
