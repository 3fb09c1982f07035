"""Follows the melt simulation while it runs: takes snapshots of its atoms and says how they stand.

Start the simulation (`sudo ./quickstart`). While it runs, in another terminal, from the sources:

    sudo apt-get install python3-numpy
    sudo env PYTHONPATH=api/python HOBBES_LIBRARY=build/lib/libhobbes.so \\
      /usr/bin/python3 api/python/examples/melt.py [SNAPSHOTS] [PICTURE]

It is root's, as the simulation's segment is. It is not part of the composition, and the simulation
does not wait for it. For each snapshot it
prints the step, and the distance at which neighbours are most frequent (the first peak of the
radial distribution). With PICTURE (needs matplotlib) it draws the last distribution.
"""

from __future__ import annotations

import errno
import sys
import time

import numpy

import hobbes

# The layout of the segment: bundles/melt/frame.h, version 1.
ATOMS_MOST = 100_000
FRAME = numpy.dtype([("number", "u8"), ("step", "i8"), ("low", "f8", 3), ("high", "f8", 3),
                     ("position", "f8", (ATOMS_MOST, 3))])
SEGMENT = numpy.dtype([("magic", "u4"), ("version", "u4"), ("atoms", "u4"), ("pad", "u4"),
                       ("frame", FRAME, 2)])
MAGIC = 0x746C656D
BINS, RANGE = 100, 2.5  # sigma


def radial_distribution(frame: numpy.void, atoms: int) -> numpy.ndarray:
    """Of a sample of the atoms against all of them, with the nearest image of each."""
    box = frame["high"] - frame["low"]
    position = frame["position"][:atoms]
    sample = position[:: max(atoms // 200, 1)]
    counts = numpy.zeros(BINS)
    for one in sample:
        apart = position - one
        apart -= box * numpy.round(apart / box)
        distance = numpy.sqrt((apart**2).sum(axis=1))
        counts += numpy.histogram(distance[distance > 1e-9], BINS, (0, RANGE))[0]
    edges = numpy.linspace(0, RANGE, BINS + 1)
    shells = 4 / 3 * numpy.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    return counts / (shells * len(sample) * atoms / box.prod())


def attach(patience: float) -> hobbes.Segment:
    """The simulation's segment, once it has one."""
    end = time.monotonic() + patience
    while True:
        try:
            return hobbes.Segment.attach("melt")
        except hobbes.Error as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED) or time.monotonic() > end:
                raise
            time.sleep(0.1)


def main(snapshots: int, picture: str | None) -> None:
    distribution = numpy.zeros(BINS)
    with attach(patience=60) as segment:
        taken, last = 0, -1
        while taken < snapshots:
            with segment.snapshot() as now:
                melt = now.array(SEGMENT, 1)[0]
                if melt["magic"] == 0:
                    continue  # it has just been made
                if melt["magic"] != MAGIC or melt["version"] != 1:
                    sys.exit("the segment \"melt\" is not this simulation's")
                frame = melt["frame"][numpy.argmax(melt["frame"]["number"])]
                step, atoms = int(frame["step"]), int(melt["atoms"])
                if step > last and frame["high"][0] > 0:  # there is a new frame
                    distribution = radial_distribution(frame, atoms)
                    peak = (numpy.argmax(distribution) + 0.5) * RANGE / BINS
                    print(f"step {step}: {atoms} atoms, neighbours at {peak:.3f} sigma", flush=True)
                    taken, last = taken + 1, step
            time.sleep(0.05)
    if picture:
        from matplotlib import pyplot

        pyplot.plot((numpy.arange(BINS) + 0.5) * RANGE / BINS, distribution)
        pyplot.xlabel("distance / sigma")
        pyplot.ylabel("g(r)")
        pyplot.savefig(picture)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10,
             sys.argv[2] if len(sys.argv) > 2 else None)
    except hobbes.Error as failure:
        sys.exit(f"melt.py: {failure.strerror}")
