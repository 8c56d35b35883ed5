"""Times of day in another zone: shown there and read there, the same instants all the same; days stay UTC days."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.api.served import Body, Served, answer
from tests.conftest import Published, connect, service_settings

BERLIN, KOLKATA = "Europe/Berlin", "Asia/Kolkata"
START = datetime(2019, 3, 29, tzinfo=UTC)  # two days before the clocks of Berlin go forward
HOURS = 7 * 24
BODY: Body = {"metrics": ["bitcoin_price_max"], "group_by": ["bitcoin__event_at__hour"]}
POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  masked: {metrics: ["*"], dimensions: ["*"], hashed: ["bitcoin__event_at"]}
"""


@pytest.fixture(scope="module")
def priced(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic publication with a bitcoin price half past each hour of a week: 1 USD more with each."""
    root: Path = tmp_path_factory.mktemp("priced") / "publications"
    shutil.copytree(synthetic.settings.publication_dir, root)
    with duckdb.connect(root / synthetic.version / "data.duckdb") as marts:
        marts.execute(
            "INSERT INTO marts.fct_bitcoin_prices (price_event_id, source, price, event_at, event_date) "
            "SELECT 'test@' || n, 'test', 1000 + n, moment, moment::DATE FROM ("
            "SELECT n, ?::TIMESTAMP + to_hours(n::INTEGER) + INTERVAL 30 MINUTE AS moment FROM range(?) AS numbers(n))",
            [START.replace(tzinfo=None), HOURS],
        )
    (root.parent / "policy.yml").write_text(POLICY)
    return root


async def serve(published: Published, root: Path, stack: AsyncExitStack, role: str) -> Served:
    chosen = service_settings(
        published,
        publication_dir=root,
        state_url=f"sqlite:///{root.parent / 'state.db'}",
        policy_file=root.parent / "policy.yml",
    )
    app, state = create_app(chosen), open_state(chosen.state_url)
    key = ApiKeys(state).create(role, role=role)
    state.dispose()
    await stack.enter_async_context(app.router.lifespan_context(app))
    raw = stack.enter_context(duckdb.connect())
    return Served(api=await stack.enter_async_context(connect(app, key=key)), raw=raw)


@pytest.fixture(scope="module")
async def prices(synthetic: Published, priced: Path) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        yield await serve(synthetic, priced, stack, "admin")


@pytest.fixture(scope="module")
async def masked(synthetic: Published, priced: Path) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        yield await serve(synthetic, priced, stack, "masked")


def hour(number: int, zone: str = "UTC") -> str:
    """The number-th hour, as the zone shows it."""
    text = (START + timedelta(hours=number)).astimezone(ZoneInfo(zone)).isoformat()
    return text.replace("+00:00", "Z") if zone == "UTC" else text


def times(found: Body) -> list[str]:
    return [row["bitcoin__event_at__hour"] for row in found["data"]]


@pytest.mark.parametrize("zone", ["UTC", BERLIN, KOLKATA, "America/St_Johns", "Etc/GMT+5", "Pacific/Apia"])
async def test_times_are_shown_in_the_zone_and_are_the_same_instants(prices: Served, zone: str) -> None:
    found = await answer(prices, BODY | {"time_zone": zone})

    assert times(found) == [hour(number, zone) for number in range(HOURS)]
    assert [row["bitcoin_price_max"] for row in found["data"]] == list(range(1000, 1000 + HOURS))
    assert found["meta"]["time_zone"] == zone
    assert found["columns"][0]["type"] == "timestamp"


async def test_without_a_zone_times_are_utc(prices: Served) -> None:
    found = await answer(prices, BODY)

    assert times(found)[0] == "2019-03-29T00:00:00Z"
    assert found["meta"]["time_zone"] == "UTC"


async def test_the_clocks_of_the_zone_go_forward_and_no_hour_is_lost_or_doubled(prices: Served) -> None:
    shown = times(await answer(prices, BODY | {"time_zone": BERLIN}))

    forward = shown.index("2019-03-31T01:00:00+01:00")
    assert shown[forward + 1] == "2019-03-31T03:00:00+02:00"
    assert len(set(shown)) == HOURS


async def test_every_format_shows_the_zone(prices: Served) -> None:
    body = BODY | {"time_zone": BERLIN, "limit": 3}
    expected = [hour(number, BERLIN) for number in range(3)]

    async def ask(media_type: str) -> bytes:
        response = await prices.api.post("/v1/query", json=body, headers={"Accept": media_type})
        return response.content

    lines = csv.DictReader(io.StringIO((await ask("text/csv")).decode()))
    arrow = pa.ipc.open_stream(await ask("application/vnd.apache.arrow.stream")).read_all()
    parquet = pyarrow.parquet.read_table(io.BytesIO(await ask("application/vnd.apache.parquet")))
    assert [row["bitcoin__event_at__hour"] for row in lines] == expected
    for table in (arrow, parquet):
        column = table.column("bitcoin__event_at__hour")
        assert [at.isoformat() for at in column.to_pylist()] == expected
        assert column.type.tz == BERLIN


NOON = {"field": "bitcoin__event_at__hour", "op": "gte", "values": ["2019-04-01T12:00:00"]}


@pytest.mark.parametrize(
    ("zone", "where", "first"),
    [
        ("UTC", NOON, 84),
        (BERLIN, NOON, 82),
        ("America/New_York", NOON, 88),
        (BERLIN, NOON | {"values": ["2019-04-01T12:00:00Z"]}, 84),
        (BERLIN, NOON | {"values": ["2019-04-01T12:00:00-05:00"]}, 89),
        (BERLIN, NOON | {"values": ["2019-04-01 12:00"]}, 82),
        (BERLIN, NOON | {"values": ["2019-04-01"]}, 70),
        (BERLIN, {"not": NOON | {"op": "lt"}}, 82),
        (BERLIN, "{{ TimeDimension('bitcoin__event_at', 'hour') }} >= '2019-04-01T12:00:00'", 82),
        (BERLIN, "{{ TimeDimension('bitcoin__event_at', 'hour') }} >= TIMESTAMP '2019-04-01 12:00:00'", 82),
        (BERLIN, "{{ TimeDimension('bitcoin__event_at', 'hour') }} >= TIMESTAMP '2019-04-01 12:00:00+00:00'", 84),
        ("UTC", "{{ TimeDimension('bitcoin__event_at', 'hour') }} >= TIMESTAMP '2019-04-01 12:00:00'", 84),
    ],
    ids=str,
)
async def test_times_are_read_in_the_zone_unless_they_have_an_offset(
    prices: Served, zone: str, where: object, first: int
) -> None:
    found = await answer(prices, BODY | {"time_zone": zone, "where": [where]})

    assert times(found) == [hour(number, zone) for number in range(first, HOURS)]


@pytest.mark.parametrize("value", ["2019-10-27T02:30:00", "2019-03-31T02:30:00"])
async def test_a_time_that_the_clocks_show_twice_or_never_needs_its_offset(prices: Served, value: str) -> None:
    where = [NOON | {"values": [value]}]
    refused = await prices.api.post("/v1/query", json=BODY | {"time_zone": BERLIN, "where": where})
    clear = await prices.api.post(
        "/v1/query", json=BODY | {"time_zone": BERLIN, "where": [NOON | {"values": [value + "+01:00"]}]}
    )
    elsewhere = await prices.api.post("/v1/query", json=BODY | {"time_zone": KOLKATA, "where": where})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_value")
    assert "twice or never" in refused.json()["detail"]
    assert f"{value}+0" in refused.json()["hint"]
    assert (clear.status_code, elsewhere.status_code) == (200, 200)


async def test_days_and_ranges_stay_days_in_utc(prices: Served) -> None:
    body = {
        "metrics": ["bitcoin_price_max"],
        "group_by": ["metric_time__day", "bitcoin__event_at__day", "bitcoin__event_at__extract_day"],
        "time_range": {"start": "2019-03-30", "end": "2019-03-31"},
    }
    for zone in (BERLIN, "Pacific/Apia"):
        assert (await answer(prices, body | {"time_zone": zone}))["data"] == (await answer(prices, body))["data"]
    relative = {"metrics": ["line_count"], "time_range": {"preset": "today"}, "time_zone": "Pacific/Apia"}
    assert (await answer(prices, relative))["meta"]["time_range"] == {"start": "2019-12-31", "end": "2019-12-31"}


async def test_a_filter_on_days_is_read_as_days(prices: Served) -> None:
    where = [{"field": "bitcoin__event_at__day", "op": "eq", "values": ["2019-03-30"]}]

    found = await answer(prices, BODY | {"where": where, "time_zone": BERLIN})

    assert times(found) == [hour(number, BERLIN) for number in range(24, 48)]


async def test_hours_are_compared_with_the_same_hours_of_the_day_before(prices: Served) -> None:
    body = {
        "metrics": ["bitcoin_price_latest"],
        "group_by": ["metric_time__hour"],
        "time_range": {"start": "2019-03-31", "end": "2019-03-31"},
        "compare_to": "previous_period",
        "time_zone": KOLKATA,
    }
    found = (await answer(prices, body))["data"]

    assert [row["metric_time__hour"] for row in found] == [hour(number, KOLKATA) for number in range(48, 72)]
    assert [row["bitcoin_price_latest__change"] for row in found] == [24] * 24


async def test_the_same_rows_elsewhere_are_another_answer_from_the_same_entry(prices: Served) -> None:
    body = BODY | {"limit": 5}
    utc = await prices.api.post("/v1/query", json=body)
    named = await prices.api.post("/v1/query", json=body | {"time_zone": "UTC"})
    berlin = await prices.api.post("/v1/query", json=body | {"time_zone": BERLIN})
    stale = await prices.api.post(
        "/v1/query", json=body | {"time_zone": BERLIN}, headers={"If-None-Match": utc.headers["etag"]}
    )

    assert utc.headers["etag"] == named.headers["etag"] != berlin.headers["etag"]
    assert berlin.json()["meta"]["cache"]["result"] == "hit"
    assert stale.status_code == 200


async def test_a_walk_keeps_its_zone_page_by_page(prices: Served) -> None:
    body = BODY | {"time_zone": BERLIN, "limit": 100}
    first = await answer(prices, body)
    second = await answer(prices, body | {"cursor": first["meta"]["next_cursor"]})

    assert times(first) + times(second) == [hour(number, BERLIN) for number in range(HOURS)]


async def test_a_hashed_time_is_the_same_hash_in_every_zone(masked: Served) -> None:
    shown = [times(await answer(masked, BODY | {"time_zone": zone})) for zone in ("UTC", BERLIN)]

    assert shown[0] == shown[1]
    assert not {*shown[0]} & {hour(number, zone) for number in range(HOURS) for zone in ("UTC", BERLIN)}


@pytest.mark.parametrize(
    ("zone", "nearest"),
    [
        ("Europe/Berln", BERLIN),
        ("europe/berlin", BERLIN),
        ("Berlin", BERLIN),
        ("Kolkata", KOLKATA),
        ("US/Pacifc", "US/Pacific"),
        ("localtime", None),
        ("posixrules", None),
        ("posix/Europe/Berlin", BERLIN),
        ("../../../../etc/passwd", None),
        ("/etc/localtime", None),
        ("Europe", None),
        ("\u2603", None),
        ("UTC'; DROP", None),
        ("+02:00", None),
    ],
)
async def test_an_unknown_zone_is_a_404_with_the_nearest_names(prices: Served, zone: str, nearest: str | None) -> None:
    response = await prices.api.post("/v1/query", json={"metrics": ["line_count"], "time_zone": zone})

    assert (response.status_code, response.json()["code"]) == (404, "unknown_time_zone")
    assert response.json()["hint"]
    if nearest:
        assert nearest in response.json()["nearest"]


@pytest.mark.parametrize("zone", ["", "A" * 101, 1, None])
async def test_a_zone_is_a_short_text(prices: Served, zone: object) -> None:
    response = await prices.api.post("/v1/query", json={"metrics": ["line_count"], "time_zone": zone})

    assert (response.status_code, response.json()["code"]) == (422, "malformed_request")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=st.sampled_from([BERLIN, KOLKATA, "America/New_York", "Australia/Lord_Howe", "UTC"]),
    number=st.integers(0, HOURS - 1),
)
async def test_a_time_as_it_is_shown_finds_its_own_row(prices: Served, zone: str, number: int) -> None:
    shown = hour(number, zone)
    for value in (shown, shown[:19]):
        where = [{"field": "bitcoin__event_at__hour", "op": "eq", "values": [value]}]
        found = await answer(prices, BODY | {"time_zone": zone, "where": where})
        assert found["data"] == [{"bitcoin__event_at__hour": shown, "bitcoin_price_max": 1000 + number}]
