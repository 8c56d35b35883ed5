"""Segments of a million customers, an outlook of many, what a pipeline's run takes for both, and one live score."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.bench.load import put_load, request
from tests.bench.service import PORT, environment, published, serving

CUSTOMERS, FORESEEN = 1_000_000, 100_000
SECONDS = 10.0
GOALS = {"train": 60.0, "score": 5.0, "score as served": 5.0}
MEMORY_MIB, P99_MS = 2_048, 20.0

T = TypeVar("T")
_ROW = {"rows": [{"features": {"recency_days": 12, "frequency": 30, "monetary": 5400.5}}]}


def measure() -> None:
    """Measure and print two tables."""
    # A process of its own, whose peak is that of the training alone.
    command = [sys.executable, "-m", "tests.bench.segments"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"\n### Segments: {CUSTOMERS:,} made-up customers\n")
    print("| | s | goal s |")
    print("| --- | ---: | ---: |")
    for name, seconds in told["seconds"].items():
        print(f"| {name} | {seconds:.1f} | {GOALS.get(name, '')} |")
    print(
        f"\nPeak memory {told['peak_mib']:,.0f} MiB, the customers' own {told['before_mib']:,.0f} among it; "
        f"goal {MEMORY_MIB:,} MiB"
    )
    _added()
    _live()


def _added() -> None:
    """What segments and outlook add to a whole build of the synthetic data of the real size."""
    home = published(1)
    print("\n### A whole build at scale 1, loaded before\n")
    print("| | s |")
    print("| --- | ---: |")
    for name, switch in (("without segments and outlook", "off"), ("with both", "on")):
        print(f"| {name} | {_built(home, switch):.1f} |")


def _built(home: Path, switch: str) -> float:
    insight = str(Path(sys.executable).with_name("insight"))
    settings = environment(home) | {"INSIGHT_SEGMENTS": switch}
    started = time.perf_counter()
    subprocess.run([insight, "pipeline", "publish"], check=True, env=settings, stdout=sys.stderr)
    return time.perf_counter() - started


def _live() -> None:
    with serving(published(1)) as service:
        asked = [request("/v1/segments/score", json.dumps(_ROW).encode(), key=service.key)]
        put_load(asked, port=PORT, connections=1, seconds=2)
        loads = [put_load(asked, port=PORT, connections=count, seconds=SECONDS) for count in (1, 4)]
    print("\n### One live score over HTTP\n")
    print("| connections | requests/s | p50 ms | p99 ms | goal ms | failed |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for load in loads:
        print(
            f"| {load.connections} | {load.per_second:,.0f} | {load.p50_ms:.2f} | {load.p99_ms:.2f} | {P99_MS:g} "
            f"| {load.failed} |"
        )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _train_and_score() -> None:
    from api.segment_model import SegmentModel
    from ml.evaluate import judge
    from ml.model import train
    from ml.outlook import look_ahead
    from tests.ml.customers import shop
    from tests.ml.histories import CDNOW, drawn_purchases, made

    table = shop(CUSTOMERS)
    before = _peak_mib()
    model, training = _timed(lambda: train(table))
    _, judging = _timed(lambda: judge(model, table))
    _, scoring = _timed(lambda: model.assign(table))
    served = SegmentModel.model_validate(model.document())
    values = table.of(*model.configuration.features)
    _, serving_ = _timed(lambda: served.nearest(values))
    _, writing = _timed(lambda: model.seed(table))
    past = made(drawn_purchases(CDNOW, FORESEEN, days=365, seed=1), days=365)
    _, foreseeing = _timed(lambda: look_ahead(past))
    seconds = {
        "train": training,
        "judge (inertia, silhouette, ten bootstrap models)": judging,
        "score": scoring,
        "score as served": serving_,
        "score and write the seed": writing,
        f"outlook of {FORESEEN:,} customers and four metrics, with all back-tests": foreseeing,
    }
    print(json.dumps({"seconds": seconds, "peak_mib": _peak_mib(), "before_mib": before}))


if __name__ == "__main__":
    _train_and_score()
