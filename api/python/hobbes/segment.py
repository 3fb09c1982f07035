"""Segments of shared memory (XEMEM) as numpy arrays without a copy, and their snapshots (XASM)."""

from __future__ import annotations

import ctypes
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._library import checked, checked_pointer, lib

if TYPE_CHECKING:
    import numpy

_RDONLY, _RDWR = 1, 2
_HUGE = {0: 0, 2 << 20: 1, 1 << 30: 2}
_SNAPSHOTS = 8
_COPY = 1


class Segment:
    """Memory that programs in enclaves of every kind share.

    Made by `Segment.make`, found by `Segment.attach`, or a snapshot of another one. Use it in a
    `with` block, or call `close`. Arrays and buffers of it are of no use once it is closed.
    """

    def __init__(self, handle: int, address: int, size: int, access: int, writable: bool) -> None:
        self._handle, self._address, self._size = handle, address, size
        self._access, self._writable = access, writable

    @classmethod
    def make(cls, name: str, size: int, *, mode: int = 0o600, page_size: int = 0,
             snapshots: bool = False) -> Segment:
        """Makes one of at least `size` bytes, all zero, which ends with this program.

        `mode`: who else may read and write, as of chmod. `page_size`: 0, 2 MiB or 1 GiB.
        `snapshots`: who may read it may take snapshots of it.
        """
        flags = _HUGE[page_size] | (_SNAPSHOTS if snapshots else 0)
        place = ctypes.c_void_p()
        handle = checked(lib.hobbes_segment_make(name.encode(), size, mode, flags,
                                                 ctypes.byref(place)))
        unit = page_size or 4096
        return cls(handle, place.value or 0, -(-size // unit) * unit, 0, True)

    @classmethod
    def attach(cls, name: str, *, writable: bool = False, owner: int | None = None) -> Segment:
        """Attaches one by its name; of several users' segments of that name the caller's own, else
        root's, else any other's, or that of user `owner`."""
        handle = checked(lib.hobbes_segment_search(name.encode()) if owner is None else
                         lib.hobbes_segment_search_of(name.encode(), owner))
        access = checked(lib.hobbes_segment_get(handle, _RDWR if writable else _RDONLY))
        try:
            size = checked(lib.hobbes_segment_size(access))
            address = checked_pointer(lib.hobbes_segment_attach(access, 0, 0))
        except BaseException:
            lib.hobbes_segment_release(access)
            raise
        return cls(handle, address, size, access, writable)

    def snapshot(self, name: str | None = None, *, mode: int = 0o400, copy: bool = False,
                 timeout: float = 10) -> Segment:
        """A new, read-only segment that shows one instant, while others go on writing to this one.

        Its maker must have allowed snapshots, and be the only one that writes. `copy`: copies
        without its help; the caller then knows that nobody writes meanwhile.
        """
        place = ctypes.c_void_p()
        handle = checked(lib.hobbes_segment_snapshot(
            self._handle, name.encode() if name is not None else None, mode,
            _COPY if copy else 0, int(timeout * 1000), ctypes.byref(place)))
        return Segment(handle, place.value or 0, self._size, 0, False)

    @property
    def handle(self) -> int:
        return self._handle

    def __len__(self) -> int:
        """Bytes."""
        return self._size

    @property
    def buffer(self) -> memoryview:
        """All of it as bytes, without a copy; read-only when it was attached so."""
        if self._address == 0:
            raise ValueError("the segment is closed")
        view = memoryview((ctypes.c_ubyte * self._size).from_address(self._address)).cast("B")
        return view if self._writable else view.toreadonly()

    def array(self, dtype: Any = "uint8", shape: int | tuple[int, ...] = -1,
              offset: int = 0) -> numpy.ndarray:
        """A part of it as a numpy array, without a copy: from byte `offset` on, as many elements as
        `shape` says, or all that fit."""
        import numpy

        kind = numpy.dtype(dtype)
        whole = self.buffer[offset:]
        if shape == -1:
            return numpy.frombuffer(whole[:len(whole) // kind.itemsize * kind.itemsize], kind)
        count = int(numpy.prod(shape))
        return numpy.frombuffer(whole, kind, count).reshape(shape)

    def ring(self) -> None:
        """Rings its doorbell: all who listen look at it."""
        checked(lib.hobbes_segment_ring(self._needed_access()))

    def wait(self, timeout: float | None = None) -> None:
        """Waits until others have rung since the last call; the first call begins to listen.

        Raises Error with ETIMEDOUT.
        """
        access = self._needed_access()
        checked(lib.hobbes_segment_listen(access))
        checked(lib.hobbes_segment_wait(access, -1 if timeout is None else int(timeout * 1000)))

    def _needed_access(self) -> int:
        if self._access == 0:
            self._access = checked(lib.hobbes_segment_get(
                self._handle, _RDWR if self._writable else _RDONLY))
        return self._access

    def close(self) -> None:
        """Gives it back; one that this program has made ends. More than once is allowed."""
        address, self._address = self._address, 0
        access, self._access = self._access, 0
        if address:
            lib.hobbes_segment_detach(address)
        if access:
            lib.hobbes_segment_release(access)

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
