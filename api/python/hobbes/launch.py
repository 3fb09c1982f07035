"""Running bundles and compositions."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence


def run(bundle: str | os.PathLike[str], name: str | None = None,
        options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Makes an enclave from a bundle, waits for its end and takes it away: `hobbes-run run`.

    What it printed and its exit status are in the answer. `options` stand before the bundle's.
    """
    if name is None:
        name = f"python-{os.getpid()}-{run.count}"
        run.count += 1
    return subprocess.run(["hobbes-run", "run", *options, "--bundle", os.fspath(bundle), name],
                          capture_output=True, text=True, check=False)


run.count = 0


def compose(document: str | os.PathLike[str],
            options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs a composition to its end: `remora run`."""
    return subprocess.run(["remora", "run", *options, os.fspath(document)], capture_output=True,
                          text=True, check=False)
