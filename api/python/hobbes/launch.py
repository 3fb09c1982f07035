"""Running bundles and compositions."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Sequence


def _finish(command: list[str]) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, but who interrupts it waits until the command has cleaned up."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace") as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.communicate()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run(bundle: str | os.PathLike[str], name: str | None = None,
        options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Makes an enclave from a bundle, waits for its end and takes it away: `hobbes-run run`.

    What it printed and its exit status are in the answer; its standard input is this program's.
    `options` are further ones of `hobbes-run run`.
    """
    if name is None:
        name = f"python-{secrets.token_hex(8)}"
    return _finish(["hobbes-run", "run", *options, "--bundle", os.fspath(bundle), name])


def compose(document: str | os.PathLike[str],
            options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs a composition to its end: `remora run`, with further `options` of it."""
    return _finish(["remora", "run", *options, os.fspath(document)])
