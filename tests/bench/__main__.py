"""`make bench`: everything that is measured rather than tested, side by side in one run, as tables on stdout.

`python -m tests.bench engine throughput manifest graphql flight planner segments streams` names the parts; all of
them without a name.
"""

from __future__ import annotations

import sys

from tests.bench import engine, flight, graphql, manifest, planner, segments, streams, throughput

PARTS = {
    "engine": engine.measure,
    "throughput": throughput.measure,
    "manifest": manifest.measure,
    "graphql": graphql.measure,
    "flight": flight.measure,
    "planner": planner.measure,
    "segments": segments.measure,
    "streams": streams.measure,
}

for name in sys.argv[1:] or PARTS:
    PARTS[name]()
