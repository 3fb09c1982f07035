"""Hobbes for Python programs on its nodes, inside and outside of enclaves.

    import hobbes

    for enclave in hobbes.enclaves():
        print(enclave.id, enclave.kind, enclave.state)

    with hobbes.Segment.attach("field") as field, field.snapshot() as now:
        print(now.array("float64").mean())

    with hobbes.connect("melt") as melt:
        melt.set(every=50)
"""

from ._library import Error
from .launch import compose, run
from .node import Enclave, Event, SegmentInfo, enclave_name, enclaves, events, segments
from .segment import Segment
from .service import Service, connect

__all__ = ["Enclave", "Error", "Event", "Segment", "SegmentInfo", "Service", "compose", "connect",
           "enclave_name", "enclaves", "events", "run", "segments"]
