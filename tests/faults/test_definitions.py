"""R15: good and bad definitions are published while questions come in; a bad one never replaces a good one."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import server
from tests.conftest import Published
from tests.faults.load import Reply, at_a_rate
from tests.server import Serve
from workers.duckdb_build import DuckDbBuild
from workers.errors import PublicationError
from workers.pipeline import _rehearse
from workers.publish import PublicationStore
from workers.transform import BuildResult

serve = server.serve

ROUNDS = [pytest.param(5, id="5"), pytest.param(100, id="100", marks=pytest.mark.full)]

Manifest = dict[str, Any]


def measure(manifest: Manifest, name: str) -> dict[str, Any]:
    """A measure of the sales, to be changed."""
    found: dict[str, Any] = next(
        measure for model in manifest["semantic_models"] for measure in model["measures"] if measure["name"] == name
    )
    return found


def metric(manifest: Manifest, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(metric for metric in manifest["metrics"] if metric["name"] == name)
    return found


def with_a_new_metric(manifest: Manifest, name: str) -> None:
    """Counts lines under another name."""
    copy = json.loads(json.dumps(metric(manifest, "line_count")))
    manifest["metrics"].append(copy | {"name": name})


def without_its_measure(manifest: Manifest) -> None:
    metric(manifest, "line_count")["type_params"]["measure"]["name"] = "no_such_measure"


def without_its_column(manifest: Manifest) -> None:
    name = metric(manifest, "line_count")["type_params"]["measure"]["name"]
    measure(manifest, name)["expr"] = "no_such_column"


def without_its_table(manifest: Manifest) -> None:
    relation = manifest["semantic_models"][0]["node_relation"]
    relation["alias"] = "no_such_table"


def without_models(manifest: Manifest) -> None:
    manifest["semantic_models"] = []


def of_nonsense(manifest: Manifest) -> None:
    metric(manifest, "total_revenue")["type"] = "nonsense"


BAD: tuple[Callable[[Manifest], None], ...] = (
    without_its_measure,
    without_its_column,
    without_its_table,
    without_models,
    of_nonsense,
)


@contextmanager
def defined(published: Published, folder: Path, change: Callable[[Manifest], None]) -> Iterator[BuildResult]:
    """The build of the published data, with other definitions."""
    result = published.built
    target = Path(shutil.copytree(result.target, folder / "target"))
    manifest = json.loads((target / "semantic_manifest.json").read_text())
    change(manifest)
    (target / "semantic_manifest.json").write_text(json.dumps(manifest))
    yield BuildResult(target=target, tests={"test.one": "pass"}, warnings=())
    shutil.rmtree(target)


_floors = itertools.count(1)


def question() -> Mapping[str, Any]:
    """One of twenty, so that each version runs some, and a busy machine keeps up with the rest."""
    having = {"field": "total_revenue", "op": "gt", "values": [-(next(_floors) % 20)]}
    return {"metrics": ["total_revenue"], "group_by": ["customer__location"], "having": [having]}


def problems(replies: list[Reply], allowed: list[str]) -> Counter[str]:
    """Whatever is no answer from one of the versions."""
    return Counter(
        f"{reply.status} {reply.response.text[:200]}"
        for reply in replies
        if reply.status != 200 or reply.response.json()["meta"]["publication"] not in allowed
    )


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.timeout(1_800)
async def test_definitions_are_exchanged_under_load(
    serve: Serve, synthetic: Published, tmp_path: Path, rounds: int
) -> None:
    folder = Path(shutil.copytree(synthetic.settings.publication_dir, tmp_path / "publications"))
    store, rehearse = PublicationStore(folder, keep=3), partial(_rehearse, settings=synthetic.settings)
    service = serve(folder)
    good, is_over = [synthetic.version], asyncio.Event()
    async with service.async_client() as client:
        asking = asyncio.create_task(at_a_rate([client], question, per_s=50, until=is_over))
        for nth in range(rounds):
            bad = BAD[nth % len(BAD)]
            with defined(synthetic, tmp_path, bad) as build, pytest.raises(PublicationError):
                await asyncio.to_thread(
                    store.publish, DuckDbBuild(synthetic.warehouse), build, fingerprint="bad", rehearse=rehearse
                )
            assert store.current() == good[-1], bad.__name__

            name = f"lines_{nth}"
            with defined(synthetic, tmp_path, lambda manifest, name=name: with_a_new_metric(manifest, name)) as build:
                good.append(
                    await asyncio.to_thread(
                        store.publish, DuckDbBuild(synthetic.warehouse), build, fingerprint="good", rehearse=rehearse
                    )
                )
            published_at = time.perf_counter()
            while (await client.post("/v1/query", json={"metrics": [name]})).status_code != 200:
                assert time.perf_counter() - published_at < 5, f"{name} is not there after 5 s"
                await asyncio.sleep(0.05)
        is_over.set()
        replies = await asking

    assert problems(replies, good) == {}
    assert {reply.response.json()["meta"]["publication"] for reply in replies} >= {good[0], good[-1]}
    assert len(replies) > 50 * rounds / 5
    assert "Traceback" not in service.log
