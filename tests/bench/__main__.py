"""`make bench`: everything that is measured rather than tested, side by side in one run, as tables on stdout.

`python -m tests.bench engine throughput manifest flight streams` names the parts; all of them without a name.
"""

from __future__ import annotations

import sys

from tests.bench import engine, flight, manifest, streams, throughput

PARTS = {
    "engine": engine.measure,
    "throughput": throughput.measure,
    "manifest": manifest.measure,
    "flight": flight.measure,
    "streams": streams.measure,
}

for name in sys.argv[1:] or PARTS:
    PARTS[name]()
