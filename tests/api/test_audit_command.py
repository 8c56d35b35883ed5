"""`insight audit`: who asked for what, found again by time, principal, metric, ending and request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import typer
from typer.testing import CliRunner, Result

from api.audit_listing import parse_since
from api.audit_record import line_of
from api.audit_store import AuditStore
from api.cli import audit
from api.filters import AllOf, AnyOf, Comparison, Filter, Not, Operator
from api.observation import AnsweredWith, Observation, Transport
from api.policy import Principal
from api.query import MetricQuery
from api.state import open_state

ANN = Principal(principal_id="k1", name="Ann", role="analyst")
FEMALE = Comparison(field="customer__gender", operator=Operator.EQ, values=("F",))
CHEAP = Comparison(field="product__category", operator=Operator.IN, values=("Apparel", "Office"))

app = typer.Typer()
app.command()(audit)

Run = Callable[..., Result]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def run(state: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, over the state database."""
    monkeypatch.setenv("INSIGHT_STATE_URL", str(state.url))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})

    return invoke


def keep(state: sa.Engine, name: str, *, age: timedelta = timedelta(), status: int = 200, **facts: Any) -> None:
    observation = Observation(request_id=name, transport=Transport.REST, status=status, action="run_query", **facts)
    observation.began_at_ns -= int(age.total_seconds() * 1e9)
    record = json.loads(line_of(observation))
    assert AuditStore(state).add([record | {"at": datetime.fromisoformat(record["at"])}]) == ()


def names(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["request_id"] for line in result.stdout.splitlines()]


def test_an_empty_audit_is_a_heading(run: Run) -> None:
    (heading,) = run().stdout.splitlines()

    assert heading.split()[:3] == ["at", "(UTC)", "decision"]


def test_the_newest_comes_first_in_words(run: Run, state: sa.Engine) -> None:
    where: Filter = AllOf((FEMALE, Not(AnyOf((CHEAP, FEMALE)))))
    query = MetricQuery(metrics=("total_revenue", "orders"), group_by=("metric_time__month",), where=where, limit=5)
    answer = AnsweredWith(metrics=("total_revenue",), publication="v1", sql_hash="f" * 64, rows=12, origin="hit")
    keep(state, "early", age=timedelta(seconds=5), status=401, code="missing_key")
    keep(state, "late", principal=ANN, query=query, answer=answer)

    _, late, early = run().stdout.splitlines()

    assert "answered  200" in late
    assert "Ann (analyst)" in late
    assert " 12 " in late
    assert (
        "total_revenue,orders by metric_time__month where (customer__gender eq F and not "
        "(product__category in Apparel,Office or customer__gender eq F)) limit=5"
    ) in late
    assert "refused   401" in early
    assert early.endswith("missing_key")


def test_json_has_everything_that_is_known_a_line_each(run: Run, state: sa.Engine) -> None:
    keep(state, "a", principal=ANN, query=MetricQuery(metrics=("orders",), where=FEMALE))

    (line,) = run("--json").stdout.splitlines()

    record = json.loads(line)
    assert record["what"] == {
        "metrics": ["orders"],
        "where": {"field": "customer__gender", "op": "eq", "values": ["F"]},
    }
    assert record["at"].endswith("Z")
    assert set(record) >= {
        "id",
        "principal_id",
        "role",
        "transport",
        "decision",
        "rows",
        "sql_hash",
        "publication",
        "ms",
    }


def test_records_are_chosen_by_what_they_say(run: Run, state: sa.Engine) -> None:
    keep(state, "old", age=timedelta(days=8))
    keep(state, "ann", age=timedelta(hours=1), principal=ANN, query=MetricQuery(metrics=("orders",)))
    keep(state, "refused", status=403, code="forbidden", principal=ANN)

    assert names(run("--json")) == ["refused", "ann", "old"]
    assert names(run("--json", "--since", "7d")) == ["refused", "ann"]
    assert names(run("--json", "--since", "30m")) == ["refused"]
    assert names(run("--json", "--principal", "Ann")) == names(run("--json", "--principal", "k1")) == ["refused", "ann"]
    assert names(run("--json", "--decision", "refused")) == ["refused"]
    assert names(run("--json", "--metric", "orders")) == ["ann"]
    assert names(run("--json", "--request-id", "old")) == ["old"]
    assert names(run("--json", "--limit", "1")) == ["refused"]
    assert names(run("--json", "--principal", "nobody")) == []


@pytest.mark.parametrize(
    "arguments", [("--since", "yesterday"), ("--since", "2 h"), ("--decision", "maybe"), ("--limit", "0")]
)
def test_a_wrong_option_is_bad_usage(run: Run, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert arguments[0] in result.output


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2019-01-31", datetime(2019, 1, 31, tzinfo=UTC)),
        ("2019-01-31T12:30", datetime(2019, 1, 31, 12, 30, tzinfo=UTC)),
        ("2019-01-31T12:30+02:00", datetime(2019, 1, 31, 10, 30, tzinfo=UTC)),
    ],
)
def test_a_day_and_a_time_are_read_as_utc_unless_they_say_else(text: str, moment: datetime) -> None:
    assert parse_since(text) == moment


@pytest.mark.parametrize(("text", "hours"), [("90m", 1.5), ("2h", 2), ("7d", 168), ("1w", 168), ("3600s", 1)])
def test_an_age_is_counted_back_from_now(text: str, hours: float) -> None:
    assert abs(parse_since(text) - (datetime.now(UTC) - timedelta(hours=hours))) < timedelta(minutes=1)


def test_following_shows_each_record_once_as_it_comes(state: sa.Engine) -> None:
    keep(state, "first", age=timedelta(minutes=10))
    keep(state, "second")
    program = "import typer; from api.cli import audit; app = typer.Typer(); app.command()(audit); app()"
    command = [sys.executable, "-u", "-c", program, "--follow", "--json"]
    environment = os.environ | {"INSIGHT_STATE_URL": str(state.url)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = [json.loads(process.stdout.readline())["request_id"] for _ in range(2)]
        keep(state, "late", age=timedelta(seconds=20))  # from a process whose journal was moved later
        keep(state, "third")
        shown += [json.loads(process.stdout.readline())["request_id"] for _ in range(2)]
        process.kill()

    assert shown[:2] == ["first", "second"]
    assert sorted(shown[2:]) == ["late", "third"]
