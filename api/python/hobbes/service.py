"""Services of programs in enclaves, called by name."""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ._library import Error, Handler, checked, encoded, last_error, lib, milliseconds, slices


class _Call:
    """A call under way."""

    def __init__(self, part: Callable[[Any], None] | None) -> None:
        self.part = part
        self.done = False
        self.answer: Any = None
        self.failure: BaseException | None = None


class Service:
    """The caller's end of a service whose values are CBOR, as those in C++ are. Its procedures are
    its methods:

        with hobbes.connect("melt") as melt:
            melt.set(every=50)

    Procedures whose names are no Python names, or are `call`, `close` or `describe`, are called by
    `call`. Threads take turns.
    """

    def __init__(self, name: str, timeout: float) -> None:
        import cbor2

        self._cbor = cbor2
        self._name, self._timeout = name, timeout
        self._lock = threading.RLock()
        self._depth = 0
        # One for all calls: C may tell of one that was given up, as long as there is the client.
        self._handler = Handler(self._answered)
        self._calls: dict[int, _Call] = {}
        self._numbers = 0
        self._client = self._open()

    def _open(self) -> int:
        for limit in slices(self._timeout):
            client = lib.hobbes_client_open(encoded(self._name), None, limit)
            if client:
                return client
            error = last_error(ctypes.get_errno())
            if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ECONNREFUSED):
                break
        raise error

    def _answered(self, number: int | None, error: int, content: int | None, size: int,
                  last: int) -> None:
        call = self._calls.get(number or 0)
        if call is None or call.done:
            return
        try:
            if error:
                raise last_error(-error)
            value = self._cbor.loads(ctypes.string_at(content, size)) if content and size else None
            if last:
                call.answer, call.done = value, True
            elif call.part is not None:
                call.part(value)
        except BaseException as failure:  # no exception passes through C
            call.failure, call.done = failure, True

    def call(self, procedure: str, arguments: Any = None, *, timeout: float | None = None,
             part: Callable[[Any], None] | None = None) -> Any:
        """Calls a procedure and waits for its answer. `arguments` and the answer are what CBOR can
        say. `timeout`: seconds, else those of the connection.

        `part` is told of the parts of an answer that comes in several; an exception of its ends the
        call. Raises Error: the service's own, ETIMEDOUT, ECONNREFUSED when it has gone, EBUSY when
        it does not read, EINVAL for arguments that are too large.
        """
        payload = self._cbor.dumps(arguments)
        limit = milliseconds(self._timeout if timeout is None else timeout)
        with self._lock:
            if not self._client:
                raise ValueError(f"the connection to {self._name} is closed")
            client = self._client
            self._numbers += 1
            number, call = self._numbers, _Call(part)
            self._calls[number] = call
            self._depth += 1
            issued = -1
            try:
                issued = checked(lib.hobbes_client_issue(client, encoded(procedure), payload,
                                                         len(payload), limit, self._handler,
                                                         number))
                while not call.done:
                    if checked(lib.hobbes_client_poll(client, 500)) == 0 and not call.done:
                        raise Error(errno.EIO, f"the answer of {procedure} was lost")
            finally:
                self._depth -= 1
                del self._calls[number]
                if issued >= 0 and (not call.done or call.failure is not None):
                    lib.hobbes_client_cancel(client, issued)
        if call.failure is not None:
            raise call.failure
        return call.answer

    def describe(self) -> Any:
        """Its procedures, with JSON Schemas of their arguments and results."""
        return self.call("describe")

    def __getattr__(self, procedure: str) -> Callable[..., Any]:
        if procedure.startswith("_"):
            raise AttributeError(procedure)

        def method(*arguments: Any, **fields: Any) -> Any:
            if len(arguments) > 1 or (arguments and fields):
                raise TypeError(f"{procedure}() takes one argument, or the fields of one object")
            return self.call(procedure, arguments[0] if arguments else fields or None)

        return method

    def close(self) -> None:
        """Hangs up. More than once is allowed; not while this thread's own call is answered."""
        with self._lock:
            if self._depth:
                raise RuntimeError("the connection is in use by a call of this thread")
            client, self._client = self._client, 0
            if client:
                lib.hobbes_client_close(client)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def connect(name: str, *, timeout: float = 30) -> Service:
    """Connects to a service, waiting up to `timeout` seconds for it; its calls may take as long.
    Needs the module cbor2."""
    return Service(name, timeout)
