"""Two sets of data, each taken through the pipeline and asked over HTTP; and the same files as an oracle sees them.

The oracle's raw tables come from a loader that shares nothing with `workers/`, so a test that agrees vouches for all
of it: ingestion, dbt, publication, compiler, JSON.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import AuthMode
from tests.conftest import SILENT, Published, service_settings, worker_settings
from tests.metrics import raw_facts
from tests.metrics.corrections import write_corrections
from tests.metrics.raw_loader import load_files
from tests.metrics.raw_streams import load_streams, stream_slices
from tests.snowflake import SnowflakeEmulator
from tests.snowflake_published import published_on_snowflake, snowflake_settings
from workers.generate import generate
from workers.ingest import ingest
from workers.pipeline import Pipeline
from workers.sinks import open_warehouse

Rows = list[tuple[object, ...]]
Answer = Callable[[Sequence[str], Sequence[str]], Rows]

_PAGE_ROWS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Deliveries of files, one after another, and what the pipeline made of them."""

    deliveries: tuple[Path, ...]
    published: Published


def _deliveries(name: str, home: Path, request: pytest.FixtureRequest) -> tuple[Path, ...]:
    """The real data; or a fifth of a synthetic year and a second delivery that corrects it and adds what is rare."""
    if name == "real":
        return (request.getfixturevalue("real_data"),)
    generate(home / "data", scale=0.2, seed=7)
    write_corrections(home / "data", home / "corrections")
    return home / "data", home / "corrections"


@pytest.fixture(
    scope="session", params=["real", "synthetic", pytest.param("synthetic on snowflake", marks=pytest.mark.full)]
)
def data_set(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """One data set, streams and all, published."""
    home = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    deliveries = _deliveries(request.param, home, request)
    settings = worker_settings(home, segments=True)
    if request.param.endswith("snowflake"):
        emulator = request.getfixturevalue("snowflake")
        settings = snowflake_settings(emulator, home, database="METRICS", segments=True)
    with open_warehouse(settings.warehouse_url) as warehouse:
        for delivery in deliveries:
            assert ingest(delivery, warehouse=warehouse).ok
        warehouse.store_events(stream_slices())
    version = Pipeline(settings).publish(SILENT)
    published = Published(data=deliveries[0], settings=settings, version=version)
    return DataSet(deliveries=deliveries, published=published)


@pytest.fixture(scope="session")
def raw(data_set: DataSet) -> Iterator[duckdb.DuckDBPyConnection]:
    """The raw tables of the data set, loaded independently, with the oracle's views over them."""
    with duckdb.connect() as connection:
        for delivery in data_set.deliveries:
            load_files(connection, delivery)
        load_streams(connection)
        connection.execute(raw_facts.views(segments=data_set.published.segments))
        yield connection


@pytest.fixture(scope="session")
def client(data_set: DataSet) -> Iterator[TestClient]:
    """The service over the data set."""
    with TestClient(create_app(service_settings(data_set.published, auth=AuthMode.OFF))) as connected:
        yield connected


@pytest.fixture(scope="session")
def answer(client: TestClient) -> Answer:
    """What the service answers, page by page: the group-bys in the order asked, then the metrics."""
    return partial(_answer, client)


@pytest.fixture(scope="session")
def answer_on_snowflake(
    data_set: DataSet, snowflake: SnowflakeEmulator, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Answer]:
    """What the service answers where the same marts are on Snowflake."""
    published = published_on_snowflake(snowflake, data_set.published, tmp_path_factory, database="SAMPLE")
    with TestClient(create_app(service_settings(published, auth=AuthMode.OFF))) as connected:
        yield partial(_answer, connected)


def _answer(client: TestClient, metrics: Sequence[str], group_by: Sequence[str]) -> Rows:
    rows: Rows = []
    while True:
        request = {"metrics": metrics, "group_by": group_by, "limit": _PAGE_ROWS, "offset": len(rows)}
        response = client.post("/v1/query", json=request)
        assert response.status_code == 200, response.text
        page = json.loads(response.content, parse_float=Decimal)
        types = {column["name"]: column["type"] for column in page["columns"]}
        rows += [tuple(_typed(value, types[name]) for name, value in row.items()) for row in page["data"]]
        if not page["meta"]["truncated"]:
            return rows


def _typed(value: Any, type_: str) -> object:
    match type_:
        case "date" if value is not None:
            return date.fromisoformat(value)
        case "timestamp" if value is not None:
            return datetime.fromisoformat(value).replace(tzinfo=None)
        case "float" if value is not None:
            return float(value)
        case _:
            return value
