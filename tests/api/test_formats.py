"""An answer's formats and headers: the same rows in each, chosen by Accept, with where the time went."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest

from api.rest.rows import document, row_encoder, rows

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
NDJSON = "application/x-ndjson"

# A null, a boolean, a day, a text with a null, an integer, a decimal and a float.
QUERY = {
    "metrics": ["line_count", "total_revenue", "discount_rate"],
    "group_by": ["metric_time__month", "calendar_date__is_weekend", "sale__coupon_code"],
}


async def ask(api: httpx.AsyncClient, accept: str | None, query: dict[str, Any] = QUERY) -> httpx.Response:
    headers = {} if accept is None else {"Accept": accept}
    return await api.post("/v1/query", json=query, headers=headers)


@pytest.fixture
async def expected(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    response = await ask(api, "application/json")
    rows: list[dict[str, Any]] = json.loads(response.content, parse_float=Decimal)["data"]
    assert len(rows) > 100
    return rows


def as_json(value: Any) -> Any:
    """A value of Arrow's as JSON would show it."""
    match value:
        case date():
            return value.isoformat()
        case float():
            return Decimal(repr(value))
        case _:
            return value


@pytest.mark.parametrize("media_type", [ARROW, PARQUET])
async def test_arrow_and_parquet_hold_the_same_rows_as_json(
    api: httpx.AsyncClient, expected: list[dict[str, Any]], media_type: str
) -> None:
    response = await ask(api, media_type)

    source = io.BytesIO(response.content)
    table = pa.ipc.open_stream(source).read_all() if media_type == ARROW else pyarrow.parquet.read_table(source)
    assert response.headers["content-type"] == media_type
    assert [{name: as_json(value) for name, value in row.items()} for row in table.to_pylist()] == expected
    assert pa.types.is_date32(table.schema.field("metric_time__month").type)
    assert pa.types.is_decimal(table.schema.field("total_revenue").type)


async def test_csv_holds_the_same_rows_as_json(api: httpx.AsyncClient, expected: list[dict[str, Any]]) -> None:
    response = await ask(api, CSV)

    def text(value: Any) -> str:
        match value:
            case None:
                return ""
            case bool():
                return str(value).lower()
            case _:
                return str(value)

    rows = list(csv.reader(io.StringIO(response.text, newline="")))
    assert response.headers["content-type"].startswith("text/csv")
    assert rows[0] == list(expected[0])
    assert [[text(value) for value in row.values()] for row in expected] == [
        [
            str(Decimal(cell)) if name == "discount_rate" and cell else cell
            for name, cell in zip(rows[0], row, strict=True)
        ]
        for row in rows[1:]
    ]


@pytest.mark.parametrize(
    "number", ["12345678901234567890.1234567891", "-0.0000000001", "0", "100", "0.1", "99999999999999999999999999.99"]
)
@pytest.mark.parametrize("times", [1, 500], ids=["few", "many"])
def test_a_decimal_keeps_digits_that_a_float_would_lose(number: str, times: int) -> None:
    table = pa.table({"total": pa.array([Decimal(number), None] * times, pa.decimal128(38, 10))})

    both = ",".join([f'{{"total":{number}}},{{"total":null}}'] * times)
    assert orjson.dumps(rows(table)) == f"[{both}]".encode()


def test_small_and_large_decimals_of_one_column_keep_their_places() -> None:
    numbers = ["12345678901234567890.1234567891", "0", None, "-0.0000000001", "0.000001", "100", "0.00000019"] * 100
    sums = [None if number is None else Decimal(number) for number in numbers]
    array = pa.chunked_array([sums[:333], sums[333:]], pa.decimal128(38, 10))

    written = ",".join(f'{{"total":{"null" if number is None else number}}}' for number in numbers)
    assert orjson.dumps(rows(pa.table({"total": array}))) == f"[{written}]".encode()


async def test_csv_quotes_what_needs_it(api: httpx.AsyncClient) -> None:
    query = {"metrics": ["line_count"], "group_by": ["product__description"]}
    names = [row["product__description"] for row in (await ask(api, None, query)).json()["data"]]

    rows = list(csv.reader(io.StringIO((await ask(api, CSV, query)).text, newline="")))

    assert [row[0] for row in rows[1:]] == names


async def test_ndjson_is_a_line_for_each_row_of_json(api: httpx.AsyncClient, expected: list[dict[str, Any]]) -> None:
    response = await ask(api, NDJSON)

    assert response.headers["content-type"] == NDJSON
    assert response.content.endswith(b"}\n")
    assert [json.loads(line, parse_float=Decimal) for line in response.content.splitlines()] == expected


@pytest.mark.parametrize("media_type", [CSV, NDJSON, ARROW, PARQUET])
def test_rows_that_are_written_piece_by_piece_are_the_same_as_written_at_once(media_type: str) -> None:
    days = [date(2019, 1, 1), None, date(2019, 1, 3)] * 1_000
    sums = [Decimal("0.10"), Decimal("-12345678901234567890.5"), None] * 1_000
    table = pa.table({"day": days, "sum": pa.array(sums, pa.decimal128(38, 2)), "text": ['a,"b\n', "", None] * 1_000})

    encoder = row_encoder(media_type, table.schema)
    pieces = [encoder.add(table.slice(start, 700)) for start in range(0, table.num_rows, 700)]
    written = b"".join((*pieces, encoder.end()))

    match media_type:
        case "application/vnd.apache.arrow.stream":
            assert pa.ipc.open_stream(written).read_all() == table
        case "application/vnd.apache.parquet":
            assert pyarrow.parquet.read_table(io.BytesIO(written)) == table
        case _:
            assert written == document(media_type, table)


@pytest.mark.parametrize("media_type", ["application/json", CSV, ARROW, PARQUET, NDJSON])
async def test_an_answer_without_rows_is_one_in_every_format(api: httpx.AsyncClient, media_type: str) -> None:
    response = await ask(api, media_type, QUERY | {"time_range": {"start": "2001-01-01", "end": "2001-01-02"}})

    assert response.status_code == 200
    match media_type:
        case "application/json":
            assert response.json()["data"] == []
        case "text/csv":
            assert response.text.split() == [",".join((*QUERY["group_by"], *QUERY["metrics"]))]
        case "application/x-ndjson":
            assert response.content == b""
        case "application/vnd.apache.arrow.stream":
            assert pa.ipc.open_stream(response.content).read_all().num_rows == 0
        case _:
            assert pyarrow.parquet.read_table(io.BytesIO(response.content)).num_rows == 0


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", CSV),
        ("TEXT/CSV", CSV),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("text/csv;q=0.5, application/json;q=0.4", CSV),
        ("application/json;q=0, */*;q=0.1", CSV),
        ("application/json;q=0.1, application/*;q=0.9", ARROW),
        (f"image/png, {PARQUET}", PARQUET),
        (f"{NDJSON}, */*;q=0.1", NDJSON),
        (f"{ARROW}; q=1.0 , text/csv", CSV),
    ],
)
async def test_accept_chooses_the_format(api: httpx.AsyncClient, accept: str | None, media_type: str) -> None:
    response = await ask(api, accept)

    assert response.status_code == 200
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert "Accept" in response.headers["vary"]


@pytest.mark.parametrize("accept", ["image/png", "text/html", "application/json;q=0", "*/*;q=0", ";;,", "json"])
async def test_an_accept_that_nothing_satisfies_is_a_406(api: httpx.AsyncClient, accept: str) -> None:
    response = await ask(api, accept)

    assert response.status_code == 406
    assert response.json()["code"] == "not_acceptable"
    assert "text/csv" in response.json()["hint"]
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_saved_query_comes_in_every_format_too(api: httpx.AsyncClient) -> None:
    path = "/v1/saved-queries/revenue_by_month/results"
    as_rows = (await api.get(path)).json()["data"]

    as_text = (await api.get(path, headers={"Accept": CSV})).text

    assert [row["metric_time__month"] for row in csv.DictReader(io.StringIO(as_text))] == [
        row["metric_time__month"] for row in as_rows
    ]


async def test_server_timing_says_where_the_time_went(api: httpx.AsyncClient) -> None:
    response = await api.post("/v1/query", json=QUERY, headers={"Cache-Control": "no-cache"})

    timings = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    meta = response.json()["meta"]["timings"]
    assert {f"{name}_ms": float(ms) for name, ms in timings.items()} == meta
    assert meta["total_ms"] >= meta["run_ms"] > 0


async def test_a_request_id_is_taken_over_if_it_is_harmless(api: httpx.AsyncClient) -> None:
    given = "trace-7.of_A"

    response = await api.get("/v1/entities", headers={"X-Request-Id": given})

    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", 'x"} {"level": "error', "a" * 65, "<script>", "ünsafe", "a\tb"])
async def test_a_request_id_that_could_do_harm_is_replaced(api: httpx.AsyncClient, given: str) -> None:
    response = await api.get("/v1/nowhere", headers={"X-Request-Id": given.encode()})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_every_answer_has_its_own_request_id_and_query_id(api: httpx.AsyncClient) -> None:
    responses = [await ask(api, None) for _ in range(3)]

    assert len({response.headers["x-request-id"] for response in responses}) == 3
    assert len({response.json()["meta"]["query_id"] for response in responses}) == 3


async def test_the_same_shape_with_other_values_reuses_its_plan(api: httpx.AsyncClient) -> None:
    def query(text: str, months: int) -> dict[str, Any]:
        where = [{"field": "product__description", "op": "contains", "values": [text]}]
        time_range = {"last": months, "unit": "month"}
        return {
            "metrics": ["units_sold"],
            "group_by": ["customer__tenure_band"],
            "where": where,
            "time_range": time_range,
        }

    first, second = (await ask(api, None, query("Google", 12))).json(), (await ask(api, None, query("Tee", 3))).json()

    assert (first["meta"]["cache"]["plan"], second["meta"]["cache"]["plan"]) == ("miss", "hit")
    assert first["data"] != second["data"]
    other = {**query("Google", 12), "metrics": ["line_count"]}
    assert (await ask(api, None, other)).json()["meta"]["cache"]["plan"] == "miss"
