"""The audit's way from a request to the state database: nothing is lost, doubled, or waited for.

Every test runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from api.audit import AuditTrail
from api.audit_record import line_of
from api.audit_store import AuditQuestion, AuditStore
from api.errors import Unavailable, WrongSetting
from api.filters import AllOf, AnyOf, Comparison, Filter, Not, Operator
from api.journal import JournalFile
from api.observation import AnsweredWith, Observation, Transport
from api.periods import LastUnits, Unit
from api.policy import Principal
from api.query import MetricQuery, OrderBy
from api.settings import AuditMode
from api.state import open_state
from tests.services import PostgresServer

EVERYTHING = AuditQuestion()
YEAR = timedelta(days=365)


@asynccontextmanager
async def running(
    state: sa.Engine, folder: Path, *, mode: AuditMode = AuditMode.REQUIRED, keep_for: timedelta = YEAR
) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(folder=folder, store=AuditStore(state), mode=mode, keep_for=keep_for)
    trail.start()
    yield trail
    await trail.close()


def request(name: str = "a", **facts: Any) -> Observation:
    return Observation(request_id=name, transport=Transport.REST, status=200, **facts)


def kept(state: sa.Engine, question: AuditQuestion = EVERYTHING) -> list[dict[str, Any]]:
    return AuditStore(state).newest(question, limit=10_000)


def what_is_said_of(query: MetricQuery) -> dict[str, Any]:
    what: dict[str, Any] = json.loads(line_of(request(query=query)))["what"]
    return what


async def moved(trail: AuditTrail) -> None:
    """Return when nothing waits any more."""
    async with asyncio.timeout(30):
        while trail.counters().backlog:  # noqa: ASYNC110 - the trail tells nobody
            await asyncio.sleep(0.05)


def journals(folder: Path) -> list[Path]:
    return list(folder.glob("*.jsonl"))


async def test_a_record_reaches_the_database_within_seconds(state: sa.Engine, tmp_path: Path) -> None:
    async with running(state, tmp_path / "audit") as trail:
        trail.write(request("a"))
        assert trail.counters().backlog == 1
        await moved(trail)
        assert [record["request_id"] for record in kept(state)] == ["a"]
        assert trail.counters().moved == 1


async def test_every_fact_comes_back_as_it_was(state: sa.Engine, tmp_path: Path) -> None:
    principal = Principal(principal_id="k1", name="Änne", role="analyst")
    query = MetricQuery(
        metrics=("total_revenue",),
        group_by=("metric_time__month",),
        where=AllOf(
            (
                Comparison(field="customer__gender", operator=Operator.EQ, values=("F",)),
                Not(AnyOf((Comparison(field="product__category", operator=Operator.IN, values=("é", "x\0")),))),
            )
        ),
        having=Comparison(field="total_revenue", operator=Operator.GT, values=(2**70,)),
        time_range=LastUnits(count=3, unit=Unit.MONTH),
        order_by=(OrderBy(field="total_revenue", is_descending=True),),
        limit=7,
    )
    answer = AnsweredWith(metrics=("m",), publication="v1", sql_hash="f" * 64, query_id="q", rows=3, origin="hit")
    asked = request("a", principal=principal, query=query, answer=answer, action="run_query")

    async with running(state, tmp_path / "audit") as trail:
        trail.write(asked)
    (record,) = kept(state)

    assert record.pop("what") == {
        "metrics": ["total_revenue"],
        "group_by": ["metric_time__month"],
        "time_range": {"count": 3, "unit": "month"},
        "order_by": [{"field": "total_revenue", "is_descending": True}],
        "limit": 7,
        "where": {
            "all_of": [
                {"field": "customer__gender", "op": "eq", "values": ["F"]},
                {"not": {"any_of": [{"field": "product__category", "op": "in", "values": ["é", "x\ufffd"]}]}},
            ]
        },
        "having": {"field": "total_revenue", "op": "gt", "values": [str(2**70)]},
    }
    assert record.pop("at") == datetime.fromtimestamp(asked.began_at_ns / 1e9, UTC)
    assert record.pop("ms") >= 0
    assert record == {
        "id": asked.record_id,
        "request_id": "a",
        "principal_id": "k1",
        "principal_name": "Änne",
        "role": "analyst",
        "transport": "rest",
        "action": "run_query",
        "decision": "answered",
        "status": 200,
        "code": None,
        "rows": 3,
        "publication": "v1",
        "cache": "hit",
        "sql_hash": "f" * 64,
    }


@pytest.mark.parametrize("text", ["x" * 100_000, "\ud800", "\0", "é" * 500, "\\u0000", '"'])
async def test_any_text_can_be_kept(state: sa.Engine, tmp_path: Path, text: str) -> None:
    asked = request("a", query=MetricQuery(metrics=(text,)), parameters={"search": text}, action=text[:50])
    asked.principal = Principal(principal_id=text, name=text, role=text)
    async with running(state, tmp_path / "audit") as trail:
        trail.write(asked)

    (record,) = kept(state)
    assert len(record["what"]["metrics"][0]) <= 200
    assert trail.counters().refused == 0


async def test_what_is_written_twice_is_kept_once_as_it_was_last(state: sa.Engine, tmp_path: Path) -> None:
    streamed = request("a")
    async with running(state, tmp_path / "audit") as trail:
        trail.write(streamed)
        streamed.is_cancelled = True
        trail.write(streamed)

    assert [record["decision"] for record in kept(state)] == ["cancelled"]


async def test_a_start_takes_over_what_a_dead_process_left(state: sa.Engine, tmp_path: Path) -> None:
    left = JournalFile.create(tmp_path / "audit")
    for name in ("a", "b"):
        left.append(line_of(request(name)))
    left.release()

    async with running(state, tmp_path / "audit"):
        pass

    assert {record["request_id"] for record in kept(state)} == {"a", "b"}
    assert journals(tmp_path / "audit") == []


async def test_death_between_the_database_and_the_journal_doubles_nothing(state: sa.Engine, tmp_path: Path) -> None:
    store, left, asked = AuditStore(state), JournalFile.create(tmp_path / "audit"), request("a")
    left.append(line_of(asked))
    left.release()
    line = json.loads(line_of(asked))
    store.add([line | {"at": datetime.fromisoformat(line["at"])}])  # and then it died

    async with running(state, tmp_path / "audit"):
        pass

    assert [record["id"] for record in kept(state)] == [asked.record_id]


async def test_two_processes_move_their_own_records_and_leave_the_other_s_alone(
    state: sa.Engine, tmp_path: Path
) -> None:
    async with running(state, tmp_path / "audit") as one, running(state, tmp_path / "audit") as other:
        for number in range(200):
            (one, other)[number % 2].write(request(str(number)))

    assert sorted(int(record["request_id"]) for record in kept(state)) == list(range(200))
    assert one.counters().moved == other.counters().moved == 100


async def test_more_records_than_one_transaction_takes_all_arrive(state: sa.Engine, tmp_path: Path) -> None:
    async with running(state, tmp_path / "audit") as trail:
        for number in range(1_234):
            trail.write(request(str(number)))

    assert len({record["request_id"] for record in kept(state)}) == 1_234


async def test_a_record_that_the_database_refuses_is_set_aside_and_holds_nothing_up(
    state: sa.Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "audit"
    left = JournalFile.create(folder)
    bad = json.loads(line_of(request("bad"))) | {"action": None}
    for line in (line_of(request("a")), json.dumps(bad).encode(), b"no JSON", line_of(request("b"))):
        left.append(line)
    left.release()

    async with running(state, folder) as trail:
        pass

    assert {record["request_id"] for record in kept(state)} == {"a", "b"}
    assert trail.counters().refused == 1
    assert json.loads((folder / "refused.ndjson").read_text())["request_id"] == "bad"


async def test_what_is_older_than_the_retention_is_removed(state: sa.Engine, tmp_path: Path) -> None:
    day_ns = 24 * 3600 * 10**9
    old, recent = request("old"), request("recent")
    old.began_at_ns -= 31 * day_ns
    recent.began_at_ns -= 29 * day_ns
    async with running(state, tmp_path / "audit") as trail:
        trail.write(old)
        trail.write(recent)
    assert len(kept(state)) == 2

    async with running(state, tmp_path / "audit", keep_for=timedelta(days=30)):
        pass

    assert [record["request_id"] for record in kept(state)] == ["recent"]


async def test_a_database_that_is_away_delays_records_and_loses_none(postgres: PostgresServer, tmp_path: Path) -> None:
    state = open_state(postgres.url)
    with state.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
    async with running(state, tmp_path / "audit") as trail:
        trail.write(request("before"))
        await moved(trail)
        postgres.stop()
        for number in range(10):
            trail.write(request(str(number)))
            await asyncio.sleep(0.15)
        assert trail.counters().backlog == 10
        postgres.start()
        await moved(trail)

    assert {record["request_id"] for record in kept(state)} == {"before", *map(str, range(10))}
    state.dispose()


async def test_what_cannot_be_moved_at_the_end_is_moved_by_the_next_start(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    state = open_state(postgres.url)
    with state.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
    async with running(state, tmp_path / "audit") as trail:
        postgres.stop()
        trail.write(request("a"))
    postgres.start()
    assert len(journals(tmp_path / "audit")) == 1

    async with running(state, tmp_path / "audit"):
        pass

    assert [record["request_id"] for record in kept(state)] == ["a"]
    state.dispose()


def block(folder: Path) -> None:
    """Let the folder, which is empty once all is moved, be no folder, so that no file can be made in it."""
    folder.rmdir()
    folder.touch()


async def test_without_a_journal_nothing_is_answered_if_the_audit_is_required(state: sa.Engine, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    async with running(state, folder) as trail:
        trail.write(request("before"))
        await moved(trail)
        block(folder)
        with pytest.raises(Unavailable) as caught:
            trail.write(request("a"))
        assert caught.value.code == "audit_unavailable"
        assert caught.value.retry_after is not None
        folder.unlink()
        trail.write(request("b"))

    assert {record["request_id"] for record in kept(state)} == {"before", "b"}
    assert trail.counters().unwritten == 1


async def test_without_a_journal_answers_go_on_if_the_audit_is_best_effort(state: sa.Engine, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    async with running(state, folder, mode=AuditMode.BEST_EFFORT) as trail:
        trail.write(request("before"))
        await moved(trail)
        block(folder)
        trail.write(request("a"))
        assert trail.counters().unwritten == 1


async def test_a_folder_that_cannot_be_written_stops_the_start_unless_best_effort(
    state: sa.Engine, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WrongSetting, match="cannot be written"):
        async with running(state, tmp_path / "file"):
            pass
    async with running(state, tmp_path / "file", mode=AuditMode.BEST_EFFORT):
        pass


async def test_records_are_found_by_what_they_say(state: sa.Engine, tmp_path: Path) -> None:
    ann = Principal(principal_id="k1", name="Ann", role="analyst")
    async with running(state, tmp_path / "audit") as trail:
        trail.write(request("a", principal=ann, query=MetricQuery(metrics=("total_revenue", "orders"))))
        trail.write(request("b", query=MetricQuery(metrics=("total_revenue_ytd",))))
        refused = request("c", principal=ann)
        refused.status, refused.code = 403, "forbidden"
        trail.write(refused)

    def found(**facts: Any) -> list[str]:
        return [record["request_id"] for record in kept(state, AuditQuestion(**facts))]

    assert found() == ["c", "b", "a"]  # newest first
    assert found(principal="Ann") == found(principal="k1") == ["c", "a"]
    assert found(metric="total_revenue") == ["a"]
    assert found(metric="total%") == []
    assert found(decision="refused") == ["c"]
    assert found(request_id="b") == ["b"]
    assert found(since=datetime.now(UTC) - timedelta(minutes=5)) == ["c", "b", "a"]
    assert found(since=datetime.now(UTC) + timedelta(minutes=5)) == []
    assert len(AuditStore(state).newest(EVERYTHING, limit=2)) == 2


def nested(depth: int) -> Filter:
    leaf: Filter = Comparison(field="f", operator=Operator.EQ, values=("v",))
    for _ in range(depth):
        leaf = AnyOf((leaf, Comparison(field="g" * 250, operator=Operator.EQ, values=("w",))))
    return leaf


@pytest.mark.parametrize(
    "query",
    [
        MetricQuery(metrics=tuple(f"metric_{number}" for number in range(50_000))),
        MetricQuery(where=Comparison(field="f", operator=Operator.IN, values=tuple(map(str, range(50_000))))),
        MetricQuery(where=AllOf(tuple(nested(3) for _ in range(1_000)))),
        MetricQuery(where=nested(200)),
        MetricQuery(group_by=("x" * 1_000_000,) * 100),
    ],
    ids=["metrics", "values", "groups", "deep", "long"],
)
def test_a_record_is_bounded_whatever_was_asked(query: MetricQuery) -> None:
    assert len(line_of(request(query=query))) < 16_000


def test_a_question_that_is_cut_says_so_and_keeps_its_limits() -> None:
    values = tuple(map(str, range(50_000)))
    query = MetricQuery(metrics=("m",), where=Comparison(field="f", operator=Operator.IN, values=values), limit=3)

    what = what_is_said_of(query)

    assert what["cut"] is True
    assert (what["metrics"], what["limit"]) == (["m"], 3)
    assert what["where"]["values"][:2] == ["0", "1"]
    assert "cut" not in what_is_said_of(MetricQuery(metrics=("m",)))


@pytest.mark.parametrize(
    "secret",
    [
        "mi_0a1b2c3d_" + "canary" * 7,
        "mi_0a1b2c3d_cut",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.canary",
        "Bearer canary-0815",
    ],
)
def test_a_credential_in_the_place_of_a_value_is_not_kept(secret: str) -> None:
    query = MetricQuery(metrics=(secret,), where=Comparison(field="f", operator=Operator.EQ, values=(secret,)))

    line = line_of(request(query=query, parameters={"search": secret})).decode()

    assert secret.removeprefix("Bearer ") not in line
    assert "[credential]" in line
