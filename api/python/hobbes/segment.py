"""Segments of shared memory (XEMEM) as numpy arrays without a copy, and their snapshots (XASM)."""

from __future__ import annotations

import ctypes
import errno
import os
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._library import Error, checked, checked_pointer, encoded, lib, milliseconds, slices

if TYPE_CHECKING:
    import numpy

_RDONLY, _RDWR = 1, 2
_HUGE = {0: 0, 4096: 0, 2 << 20: 1, 1 << 30: 2}
_SNAPSHOTS = 8
_COPY = 1


def _give_back(process: int, address: int) -> None:
    if os.getpid() == process:  # a child of fork has no part in it
        lib.hobbes_segment_detach(address)


class Segment:
    """Memory that programs in enclaves of every kind share.

    Made by `Segment.make`, found by `Segment.attach`, or a snapshot of another one. Use it in a
    `with` block, or call `close`: a segment that this program has made then ends for others. The
    memory stays mapped as long as there is an array or buffer of it.
    """

    def __init__(self, handle: int, address: int, size: int, access: int, writable: bool,
                 made: bool) -> None:
        self._handle, self._size, self._access = handle, size, access
        self._writable, self._made, self._process = writable, made, os.getpid()
        # What all views keep alive, and what gives the memory back when the last one has gone.
        self._memory: Any = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(self._memory, _give_back, self._process, address)

    @classmethod
    def make(cls, name: str, size: int, *, mode: int = 0o600, page_size: int = 0,
             snapshots: bool = False) -> Segment:
        """Makes one of at least `size` bytes, all zero, which ends with this program.

        `mode`: who else may read and write, as of chmod. `page_size`: 0 (normal pages), 2 MiB or
        1 GiB. `snapshots`: who may read it may take snapshots of it.
        """
        if size < 1 or page_size not in _HUGE:
            raise ValueError("a segment has at least one byte, and pages of 4 KiB, 2 MiB or 1 GiB")
        flags = _HUGE[page_size] | (_SNAPSHOTS if snapshots else 0)
        place = ctypes.c_void_p()
        handle = checked(lib.hobbes_segment_make(encoded(name), size, mode, flags,
                                                 ctypes.byref(place)))
        unit = page_size or 4096
        return cls(handle, place.value or 0, -(-size // unit) * unit, 0, True, True)

    @classmethod
    def attach(cls, name: str, *, writable: bool = False, owner: int | None = None) -> Segment:
        """Attaches one by its name; of several users' segments of that name the caller's own, else
        root's, else any other's, or that of user `owner`."""
        handle = checked(lib.hobbes_segment_search(encoded(name)) if owner is None else
                         lib.hobbes_segment_search_of(encoded(name), owner))
        access = checked(lib.hobbes_segment_get(handle, _RDWR if writable else _RDONLY))
        try:
            size = checked(lib.hobbes_segment_size(access))
            address = checked_pointer(lib.hobbes_segment_attach(access, 0, 0))
        except BaseException:
            lib.hobbes_segment_release(access)
            raise
        return cls(handle, address, size, access, writable, False)

    def snapshot(self, name: str | None = None, *, mode: int = 0o400, copy: bool = False,
                 timeout: float = 10) -> Segment:
        """A new, read-only segment that shows one instant, while others go on writing to this one.

        Its maker must have allowed snapshots, and be the only one that has it open for writing.
        `copy`: copies without its help; the caller then knows that nobody writes meanwhile.
        `timeout`: seconds, at most 10.
        """
        place = ctypes.c_void_p()
        handle = checked(lib.hobbes_segment_snapshot(
            self._handle, encoded(name) if name is not None else None, mode,
            _COPY if copy else 0, milliseconds(min(timeout, 10)), ctypes.byref(place)))
        return Segment(handle, place.value or 0, self._size, 0, False, True)

    @property
    def handle(self) -> int:
        return self._handle

    def __len__(self) -> int:
        """Bytes."""
        return self._size

    @property
    def buffer(self) -> memoryview:
        """All of it as bytes, without a copy; read-only when it was attached so."""
        if self._memory is None:
            raise ValueError("the segment is closed")
        view = memoryview(self._memory).cast("B")
        return view if self._writable else view.toreadonly()

    def array(self, dtype: Any = "uint8", shape: int | tuple[int, ...] = -1,
              offset: int = 0) -> numpy.ndarray[Any, Any]:
        """A part of it as a numpy array, without a copy: from byte `offset` on, as many elements as
        `shape` says, or all that fit."""
        import numpy

        if not 0 <= offset <= self._size:
            raise ValueError(f"byte {offset} is not in the segment, which has {self._size}")
        kind = numpy.dtype(dtype)
        sizes = (shape,) if isinstance(shape, int) else shape
        known = -int(numpy.prod(sizes)) if -1 in sizes else int(numpy.prod(sizes))
        fitting = (self._size - offset) // kind.itemsize
        count = fitting // known * known if -1 in sizes else known
        return numpy.frombuffer(self.buffer, kind, count, offset).reshape(shape)

    def ring(self) -> None:
        """Rings its doorbell: all who listen look at it."""
        checked(lib.hobbes_segment_ring(self._needed_access()))

    def listen(self) -> None:
        """From now on others' rings are heard."""
        checked(lib.hobbes_segment_listen(self._needed_access()))

    def wait(self, timeout: float | None = None) -> None:
        """Waits until others have rung since the last call, or since `listen`.

        Raises Error with ETIMEDOUT. Do not close the segment meanwhile.
        """
        self.listen()
        last: Error | None = None
        for limit in slices(timeout):
            try:
                checked(lib.hobbes_segment_wait(self._needed_access(), limit))
                return
            except Error as error:
                if error.errno != errno.ETIMEDOUT:
                    raise
                last = error
        assert last is not None
        raise last

    # For the doorbell only. A writable one would count as a second writer.
    def _needed_access(self) -> int:
        if self._access == 0:
            self._access = checked(lib.hobbes_segment_get(self._handle, _RDONLY))
        return self._access

    def close(self) -> None:
        """Gives it back; one that this program has made ends. More than once is allowed."""
        if self._memory is None:
            return
        self._memory = None
        access, self._access = self._access, 0
        if self._process != os.getpid():
            return
        if access:
            lib.hobbes_segment_release(access)
        if self._made:
            lib.hobbes_segment_remove(self._handle)

    def __del__(self) -> None:
        if getattr(self, "_memory", None) is not None:
            try:
                self.close()
            except Exception:  # the interpreter may be ending
                pass

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
