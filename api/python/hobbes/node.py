"""The node's state, read from its mirror: nobody is asked, and hobbesd may be dead."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from ._library import Change, Error, Record, checked, checked_pointer, last_error, lib, slices

_TYPES = ("free", "enclave", "app", "process", "core", "numa", "segment", "attachment",
          "composition", "key", "node", "name")
_KINDS = ("?", "linux", "kitten", "palacios")
_STATES = ("?", "creating", "created", "running", "paused", "stopped", "crashed")
_CHANGES = ("?", "appeared", "changed", "gone")


@dataclass(frozen=True)
class Enclave:
    """An enclave, as it was when it was asked for."""

    id: str
    handle: int
    kind: str
    """"linux", "kitten" or "palacios"."""
    state: str
    """"creating", "created", "running", "paused", "stopped" or "crashed"."""
    pid: int
    uid: int
    cpus: tuple[int, ...]
    memory: int
    """Bytes leased."""
    exit_status: int
    """As shells report it; -1 while it is not known."""


@dataclass(frozen=True)
class SegmentInfo:
    """What the node knows of a segment."""

    name: str
    handle: int
    size: int
    page_size: int
    owner: int
    """The process that made it."""
    mode: int
    uid: int
    attachments: int
    snapshot_of: int
    """The handle of the segment of which it shows one instant, 0: it is no snapshot."""


@dataclass(frozen=True)
class Event:
    """A change of a record."""

    sequence: int
    what: str
    """"appeared", "changed" or "gone"."""
    type: str
    """"enclave", "segment", "process", ..."""
    handle: int
    name: str
    """At most 79 bytes of it."""
    state: str
    """Of an enclave; else its number."""
    time_ns: int
    """CLOCK_REALTIME."""


def _word(words: tuple[str, ...], number: int) -> str:
    return words[number] if number < len(words) else str(number)


class _Mirror:
    def __init__(self) -> None:
        self._nis = checked_pointer(lib.hobbes_nis_open(None))

    def __enter__(self) -> _Mirror:
        return self

    def __exit__(self, *_: object) -> None:
        lib.hobbes_nis_close(self._nis)

    def records(self, kind: str) -> Iterator[Record]:
        cursor, record = ctypes.c_uint64(0), Record()
        number = _TYPES.index(kind)
        while True:
            error = lib.hobbes_nis_next(self._nis, number, ctypes.byref(cursor),
                                        ctypes.byref(record))
            if error == -errno.ENOENT:
                return
            if error < 0:
                raise last_error(-error)
            yield record

    def sequence(self) -> int:
        return lib.hobbes_nis_sequence(self._nis)

    def wait(self, sequence: int, milliseconds: int) -> tuple[int, Change]:
        at, change = ctypes.c_uint64(sequence), Change()
        checked(lib.hobbes_nis_wait(self._nis, ctypes.byref(at), ctypes.byref(change),
                                    milliseconds))
        return at.value, change


def enclave_name() -> str:
    """The id of the enclave that this program runs in, "" outside of any."""
    return lib.hobbes_self().decode()


def enclaves() -> list[Enclave]:
    """All enclaves of the node, in the order of their ids."""
    out = []
    with _Mirror() as mirror:
        for record in mirror.records("enclave"):
            body = record.body.enclave
            cpus = tuple(64 * word + bit for word in range(16) for bit in range(64)
                         if body.cpus[word] >> bit & 1)
            out.append(Enclave(record.name.decode(), record.id, _word(_KINDS, body.kind),
                               _word(_STATES, record.state), body.pid, record.uid, cpus,
                               sum(body.memory), body.exit_status))
    return sorted(out, key=lambda enclave: enclave.id)


def segments() -> list[SegmentInfo]:
    """All segments of the node, in the order of their names."""
    out = []
    with _Mirror() as mirror:
        for record in mirror.records("segment"):
            body = record.body.segment
            out.append(SegmentInfo(record.name.decode(), record.id, body.size, body.page_size,
                                   body.owner_pid, body.mode, record.uid, body.attachments,
                                   body.snapshot_of))
    return sorted(out, key=lambda segment: segment.name)


def events(timeout: float | None = None) -> Iterator[Event]:
    """Changes from now on, as they come; ends when none has come for `timeout` seconds.

    Raises Error: EOVERFLOW when changes were lost, ESTALE when hobbesd has made the mirror anew.
    What was read before is then out of date.
    """
    mirror = _Mirror()
    return _events(mirror, mirror.sequence(), timeout)


def _events(mirror: _Mirror, sequence: int, timeout: float | None) -> Iterator[Event]:
    with mirror:
        while True:
            for limit in slices(timeout):
                try:
                    sequence, change = mirror.wait(sequence, limit)
                    break
                except Error as error:
                    if error.errno != errno.ETIMEDOUT:
                        raise
            else:
                return
            kind = _word(_TYPES, change.type)
            state = _word(_STATES, change.state) if kind == "enclave" else str(change.state)
            yield Event(change.sequence, _word(_CHANGES, change.kind), kind, change.id,
                        change.name.decode(errors="replace"), state, change.time_ns)
