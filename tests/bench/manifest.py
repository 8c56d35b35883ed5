"""A generated project of 500 metrics and 200 dimensions: start, lists, compilation, a misspelt name.

The manifest is the real one with its metrics and dimensions multiplied: the copies mean the same columns under other
names, so the published data answers them and MetricFlow has as much to plan as in a large company's project.
"""

from __future__ import annotations

import copy
import http.client
import json
import shutil
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.service import HOME, PORT, published, serving

METRICS, DIMENSIONS = 500, 200
GOALS_MS = {"start": 5_000, "list": 50, "compile p95": 200, "misspelt name": 200}


def measure() -> None:
    """Print what each takes, beside its goal."""
    home = _large(published(1))
    started = time.perf_counter()
    with serving(home) as service:
        found = {"start": [(time.perf_counter() - started) * 1000]}
        ask = _Client(service.key)
        found["list"] = [
            ask.timed("GET", path) for path in ("/v1/metrics?limit=500", "/v1/dimensions?limit=500") for _ in range(10)
        ]
        names = [metric["name"] for metric in ask.json("/v1/metrics?limit=500")["data"]]
        found["compile p95"] = [ask.timed("POST", "/v1/query/compile", body) for body in _questions(names)]
        found["misspelt name"] = [
            ask.timed("POST", "/v1/query", {"metrics": [name[:-1] + "x"]}, status=404) for name in names[::10]
        ]
        peak = service.peak_mib()
    _report(found, metrics=len(names), peak_mib=peak)


def _questions(names: list[str]) -> Iterable[dict[str, Any]]:
    joined = ["metric_time__month", "customer__location"]
    for name in [name for name in names if name.startswith(("total_revenue", "gross_revenue", "units_sold"))][:100]:
        yield {"metrics": [name], "group_by": joined}


def _large(home: Path) -> Path:
    """A home beside the given one, whose publication has the larger manifest."""
    large = HOME / "large-manifest"
    shutil.rmtree(large, ignore_errors=True)
    shutil.copytree(home / "publications", large / "publications")
    version = (large / "publications" / "current").read_text().strip()
    file = large / "publications" / version / "semantic_manifest.json"
    file.write_text(json.dumps(_multiplied(json.loads(file.read_text()))))
    return large


def _multiplied(manifest: dict[str, Any]) -> dict[str, Any]:
    simple = [metric for metric in manifest["metrics"] if metric["type"] == "simple"]
    for number in range(METRICS - len(manifest["metrics"])):
        original = simple[number % len(simple)]
        manifest["metrics"].append(copy.deepcopy(original) | {"name": f"{original['name']}_copy_{number}"})
    models = [model for model in manifest["semantic_models"] if model["dimensions"] and model["name"] != "calendar"]
    count = sum(len(model["dimensions"]) for model in manifest["semantic_models"])
    for number in range(DIMENSIONS - count):
        model = models[number % len(models)]
        categorical = [item for item in model["dimensions"] if item["type"] == "categorical"] or model["dimensions"]
        original = categorical[number % len(categorical)]
        expr = original.get("expr") or original["name"]
        added = copy.deepcopy(original) | {"name": f"{original['name']}_copy_{number}", "expr": expr}
        model["dimensions"].append(added)
    return manifest


class _Client:
    def __init__(self, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def timed(self, method: str, path: str, body: object = None, *, status: int = 200) -> float:
        started = time.perf_counter()
        response = self._send(method, path, body)
        content = response.read()
        took = (time.perf_counter() - started) * 1000
        if response.status != status:
            raise SystemExit(f"{path} answered {response.status}: {content.decode()}")
        return took

    def json(self, path: str) -> Any:
        return json.loads(self._send("GET", path, None).read())

    def _send(self, method: str, path: str, body: object) -> http.client.HTTPResponse:
        self._connection.request(method, path, body=body and json.dumps(body), headers=self._headers)
        return self._connection.getresponse()


def _report(found: dict[str, list[float]], *, metrics: int, peak_mib: float) -> None:
    print(f"\n### A manifest of {metrics} metrics and {DIMENSIONS} dimensions (peak memory {peak_mib:.0f} MiB)\n")
    print("| | median ms | p95 ms | goal ms |")
    print("| --- | ---: | ---: | ---: |")
    for name, values in found.items():
        p95 = sorted(values)[int(len(values) * 0.95)]
        print(f"| {name} | {statistics.median(values):,.0f} | {p95:,.0f} | {GOALS_MS[name]:,} |")
