"""Services of programs in enclaves, called by name."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import TracebackType
from typing import Any

import cbor2

from ._library import Handler, checked, checked_pointer, last_error, lib


class Service:
    """The caller's end of a service. Its procedures are its methods:

        with hobbes.connect("melt") as melt:
            melt.set(every=50)
    """

    def __init__(self, name: str, timeout: float) -> None:
        self._name, self._timeout = name, timeout
        self._client = checked_pointer(
            lib.hobbes_client_open(name.encode(), None, int(timeout * 1000)))

    def call(self, procedure: str, arguments: Any = None, *, timeout: float | None = None,
             part: Callable[[Any], None] | None = None) -> Any:
        """Calls a procedure. `arguments` and the answer are what JSON can say, or bytes.

        `part` is told of the parts of an answer that comes in several. Raises Error: the service's
        own, or ETIMEDOUT, or ECONNREFUSED when it has gone.
        """
        if not self._client:
            raise ValueError(f"the connection to {self._name} is closed")
        answers: list[Any] = []
        failures: list[BaseException] = []

        def answered(_: int, error: int, content: int, size: int, last: int) -> None:
            try:
                if error:
                    failures.append(last_error(-error))
                    return
                value = cbor2.loads(ctypes.string_at(content, size)) if size else None
                if last:
                    answers.append(value)
                elif part is not None:
                    part(value)
            except BaseException as failure:  # no exception passes through C
                failures.append(failure)

        handler = Handler(answered)
        payload = cbor2.dumps(arguments)
        limit = int((self._timeout if timeout is None else timeout) * 1000)
        checked(lib.hobbes_client_issue(self._client, procedure.encode(), payload, len(payload),
                                        limit, handler, None))
        while not answers and not failures:
            checked(lib.hobbes_client_poll(self._client, 1000))
        if failures:
            raise failures[0]
        return answers[0]

    def describe(self) -> dict[str, Any]:
        """Its procedures, with JSON Schemas of their arguments and results."""
        return self.call("describe")

    def __getattr__(self, procedure: str) -> Callable[..., Any]:
        if procedure.startswith("_"):
            raise AttributeError(procedure)

        def method(*arguments: Any, timeout: float | None = None, **fields: Any) -> Any:
            if len(arguments) > 1 or (arguments and fields):
                raise TypeError(f"{procedure}() takes one argument, or the fields of one object")
            value = arguments[0] if arguments else fields if fields else None
            return self.call(procedure, value, timeout=timeout)

        return method

    def close(self) -> None:
        """Hangs up. More than once is allowed."""
        client, self._client = self._client, 0
        if client:
            lib.hobbes_client_close(client)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def connect(name: str, *, timeout: float = 30) -> Service:
    """Connects to a service, waiting up to `timeout` seconds for it; its calls may take as long."""
    return Service(name, timeout)
