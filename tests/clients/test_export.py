"""Exports as the SDK and the command line take them: whole, or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from clients.sdk import ApiError, Client
from tests.altered import altered_publication, repeated
from tests.conftest import Published
from tests.server import Server
from tests.test_cli import INSIGHT

ROWS = 10_585 * 10
QUERY = {"metrics": ["line_count"], "group_by": ["sale"]}
WORDS = ("query", "-m", "line_count", "-g", "sale", "--all")


@pytest.fixture(scope="module")
def served(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with a hundred thousand lines of sales, of which it exports no more."""
    publications = altered_publication(synthetic, tmp_path_factory.mktemp("lines"), repeated(10))
    service = Server(publications, tmp_path_factory.mktemp("server"), auth="off", max_export_rows=ROWS)
    service.start()
    yield service
    service.kill()


@pytest.fixture(scope="module")
def breaking(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service whose exports break off, as there are more rows than one may have."""
    publications = altered_publication(synthetic, tmp_path_factory.mktemp("lines"), repeated(10))
    service = Server(publications, tmp_path_factory.mktemp("server"), auth="off", max_export_rows=50_000)
    service.start()
    yield service
    service.kill()


def insight(service: Server, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"INSIGHT_API_URL": service.url, "COLUMNS": "100"}
    return subprocess.run([INSIGHT, *words], env=environment, capture_output=True, timeout=120, check=False)


def test_the_sdk_writes_every_row_and_says_how_far_it_is(served: Server) -> None:
    target, sizes = io.BytesIO(), list[int]()
    with Client(served.url) as client:
        client.export(QUERY, target, media_type="application/x-ndjson", progress=sizes.append)

    rows = [json.loads(line) for line in target.getvalue().splitlines()]
    assert len(rows) == ROWS
    assert len({row["sale"] for row in rows}) == ROWS
    assert sizes == sorted(sizes)
    assert sizes[-1] == len(target.getvalue())


def test_the_sdk_raises_what_the_service_refuses(served: Server) -> None:
    with Client(served.url) as client, pytest.raises(ApiError, match="line_cont") as refused:
        client.export({"metrics": ["line_cont"]}, io.BytesIO(), media_type="text/csv")

    assert (refused.value.code, refused.value.nearest[0]) == ("unknown_metric", "line_count")


def test_the_sdk_raises_where_an_export_breaks_off(breaking: Server) -> None:
    target = io.BytesIO()
    with Client(breaking.url) as client, pytest.raises(ApiError) as refused:
        client.export(QUERY, target, media_type="text/csv")

    assert refused.value.code == "export_broke_off"
    assert target.tell() > 0


@pytest.mark.parametrize("output", ["csv", "ndjson", "parquet", "arrow"])
def test_the_command_line_writes_every_row_to_a_file(served: Server, tmp_path: Path, output: str) -> None:
    file = tmp_path / f"lines.{output}"
    ended = insight(served, *WORDS, "-f", output, "--out", str(file))

    assert ended.returncode == 0, ended.stderr
    match output:
        case "csv":
            with file.open(newline="") as opened:
                rows = len(list(csv.DictReader(opened)))
        case "ndjson":
            rows = file.read_bytes().count(b"\n")
        case "parquet":
            rows = pyarrow.parquet.read_metadata(file).num_rows
        case _:
            rows = pa.ipc.open_stream(file.read_bytes()).read_all().num_rows
    assert rows == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_command_line_writes_every_row_to_the_screen(served: Server) -> None:
    ended = insight(served, *WORDS, "-f", "ndjson")

    assert ended.stdout.count(b"\n") == ROWS


def test_the_command_line_leaves_no_file_that_is_not_whole(breaking: Server, tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("from before")
    ended = insight(breaking, *WORDS, "-f", "csv", "--out", str(tmp_path / "lines.csv"))

    assert ended.returncode == 1
    assert b"broke off" in ended.stderr
    assert b"hint:" in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["from before"]


@pytest.mark.parametrize("output", [pytest.param("table", marks=pytest.mark.full), "json", "chart"])
def test_what_is_no_stream_shows_every_row_page_by_page(served: Server, output: str) -> None:
    ended = insight(served, *WORDS, "-f", output)

    assert ended.returncode == 0, ended.stderr
    match output:
        case "json":
            documents = [json.loads(line) for line in ended.stdout.splitlines()]
            assert len({row["sale"] for document in documents for row in document["data"]}) == ROWS
            assert [document["meta"]["truncated"] for document in documents] == [True] * (len(documents) - 1) + [False]
        case "table":
            assert ended.stdout.count(b"\n") >= ROWS
        case _:
            assert ended.stdout
