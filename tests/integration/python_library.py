"""The Python package against a hobbesd. Started by python_test.cpp: python_library.py TEST."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import numpy

import hobbes

PROGRAMS = os.environ["PROGRAMS"]


def fails_with(number, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except hobbes.Error as error:
        assert error.errno == number, error
        assert error.strerror, "it says why"
        return error.strerror
    raise AssertionError("it did not fail")


def segments():
    with hobbes.Segment.make("field", 8000, mode=0o600) as made:
        numbers = made.array("float64", (10, 100))
        assert len(made) == 8192 and numbers.shape == (10, 100)
        numbers[:] = 1.5
        with hobbes.Segment.attach("field") as seen:
            view = seen.array("float64", 1000)
            assert view.sum() == 1500
            numbers[3, 7] = 0.5
            assert view[307] == 0.5, "nothing was copied"
            assert not view.flags.writeable
            view = None
        out = subprocess.run([PROGRAMS + "/segment-peer", "attach", "field", "rw"],
                             capture_output=True, text=True, check=False)
        assert out.returncode == 0, out.stderr
        assert bytes(made.buffer[:4]) == b"seen", "another program wrote into the array's memory"
        info = [one for one in hobbes.segments() if one.name == "field"]
        assert len(info) == 1 and info[0].handle == made.handle and info[0].owner == os.getpid()
        fails_with(errno.EEXIST, hobbes.Segment.make, "field", 1)
        numbers = None
    assert hobbes.segments() == []
    why = fails_with(errno.ENOENT, hobbes.Segment.attach, "field")
    assert "hobbes segments" in why, why


def snapshots():
    with hobbes.Segment.make("field", 1 << 20, snapshots=True) as field:
        numbers = field.array("int64")
        numbers[:] = 1
        with field.snapshot("field.then") as then:
            numbers[:] = 2
            assert then.array("int64").sum() == len(numbers), "as it was"
            assert hobbes.segments()[1].snapshot_of == field.handle
            try:
                then.array("int64")[0] = 3
                raise AssertionError("a snapshot was written to")
            except ValueError:
                pass
        field.ring()
        with field.snapshot() as now:
            assert now.array("int64")[0] == 2, "its own doorbell makes nobody a writer"
        kept = numbers
    assert kept.sum() == 2 * len(kept), "memory stays as long as there is an array of it"
    with hobbes.Segment.make("plain", 4096) as plain:
        fails_with(errno.EOPNOTSUPP, plain.snapshot)
        with plain.snapshot(copy=True) as copy:
            assert len(copy) == 4096


def doorbells():
    with hobbes.Segment.make("bell", 4096) as bell:
        fails_with(errno.ETIMEDOUT, bell.wait, timeout=0)
        ringer = threading.Thread(target=lambda: (time.sleep(0.3), subprocess.run(
            [PROGRAMS + "/segment-peer", "ring", "bell", "1"], check=True)))
        ringer.start()
        bell.wait(timeout=10)
        ringer.join()


def services():
    serving = subprocess.Popen([PROGRAMS + "/fabric-peer", "serve", "peer"])
    try:
        with hobbes.connect("peer", timeout=10) as peer:
            assert "procedures" in peer.describe()
            why = fails_with(errno.ENOENT, peer.no_such_procedure, x=1)
            assert "no_such_procedure" in why, why
            serving.send_signal(signal.SIGSTOP)
            fails_with(errno.ETIMEDOUT, peer.call, "describe", timeout=0.1)
            serving.send_signal(signal.SIGCONT)
            assert "procedures" in peer.describe(), "and it goes on"
    finally:
        serving.kill()
        serving.wait()
    fails_with(errno.ENOENT, hobbes.connect, "nobody", timeout=0.1)


def enclaves(bundle):
    changes = hobbes.events(timeout=1)
    done = hobbes.run(bundle, "once")
    assert done.returncode == 7 and done.stdout == "printed\n", (done.stdout, done.stderr)
    seen = list(changes)
    told = [(one.what, one.name, one.state) for one in seen if one.type == "enclave"]
    assert ("appeared", "once", "creating") in told, told
    assert told[-1][0] == "gone", told
    subprocess.run(["hobbes-run", "create", "--bundle", bundle, "held"], check=True,
                   stdout=subprocess.DEVNULL)
    held = hobbes.enclaves()
    assert [one.id for one in held] == ["held"] and held[0].kind == "linux", held
    assert held[0].state == "created" and held[0].cpus and held[0].pid > 0, held
    subprocess.run(["hobbes-run", "delete", "--force", "held"], check=True)
    assert hobbes.enclaves() == [] and hobbes.enclave_name() == ""


globals()[sys.argv[1]](*sys.argv[2:])
