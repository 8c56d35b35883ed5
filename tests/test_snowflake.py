"""The emulated Snowflake account keeps what the other tests lean on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.snowflake import SnowflakeEmulator

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection


@pytest.fixture
def session(snowflake: SnowflakeEmulator, request: pytest.FixtureRequest) -> Iterator[SnowflakeConnection]:
    """A session in a database that no other test has."""
    with snowflake.connect(f"T_{abs(hash(request.node.name))}") as connection:
        yield connection


def test_bound_values_come_back_as_they_went(session: SnowflakeConnection) -> None:
    values = (5, Decimal("2.50"), date(2019, 1, 31), datetime.fromisoformat("2019-01-31T12:30"), "it's", True, 0.25)
    places = ", ".join(f":{number}" for number in range(1, len(values) + 1))
    (row,) = session.cursor().execute(f"select {places}, :1", values).fetchall()
    assert row == (*values, 5)


def test_nulls_stay_nulls(session: SnowflakeConnection) -> None:
    rows = session.cursor().execute("select null::timestamp, null::date, null::number(18, 2)").fetchall()
    assert rows == [(None, None, None)]


def test_keys_are_not_enforced_and_nulls_are_refused(session: SnowflakeConnection) -> None:
    from snowflake.connector.errors import ProgrammingError

    cursor = session.cursor()
    cursor.execute("create table keyed (a int not null primary key, b int unique, c int not null, unique (a, c))")
    for _ in range(2):
        cursor.execute("insert into keyed values (1, 1, 1)")
    assert cursor.execute("select * from keyed").fetchall() == [(1, 1, 1)] * 2
    with pytest.raises(ProgrammingError):
        cursor.execute("insert into keyed values (1, 1, null)")


def test_what_only_an_account_has_is_recorded_and_does_nothing(
    snowflake: SnowflakeEmulator, session: SnowflakeConnection
) -> None:
    for sql in (
        "grant select on all tables in schema marts to role marketing_analyst",
        "create masking policy if not exists private as (value string) returns string -> '***'",
        "create or replace resource monitor spending with credit_quota = 10",
        "alter table marts.fct_sales cluster by (transaction_date, customer_id)",
        "alter session set query_tag = 'loading'",
    ):
        session.cursor().execute(sql)
        assert snowflake.statements(database=session.database)[-1]["sql"] == sql


def test_the_tag_of_a_statement_is_recorded(snowflake: SnowflakeEmulator, session: SnowflakeConnection) -> None:
    session.cursor().execute("select 1", _statement_params={"QUERY_TAG": "who"})
    assert snowflake.statements(database=session.database)[-1]["parameters"]["QUERY_TAG"] == "who"


def test_a_merge_in_a_transaction_is_undone_with_it(session: SnowflakeConnection) -> None:
    cursor = session.cursor()
    cursor.execute("create table kept (a int, b varchar)")
    cursor.execute("insert into kept values (1, 'one')")
    cursor.execute("begin")
    cursor.execute(
        "merge into kept as t using (select 1 as a, 'new' as b union all select 2, 'two') as s on t.a = s.a"
        " when matched then update set b = s.b when not matched then insert (a, b) values (a, b)"
    )
    assert cursor.rowcount == 2
    cursor.execute("rollback")
    assert cursor.execute("select * from kept").fetchall() == [(1, "one")]


def test_a_schema_is_cloned_with_its_rows(session: SnowflakeConnection) -> None:
    cursor = session.cursor()
    cursor.execute("create schema marts")
    cursor.execute("create table marts.kept as select 1 as a")
    cursor.execute("create schema marts__v1 clone marts")
    cursor.execute("update marts.kept set a = 2")
    assert cursor.execute("select a from marts__v1.kept").fetchall() == [(1,)]


def test_a_statement_is_cancelled_in_the_engine(session: SnowflakeConnection) -> None:
    from snowflake.connector.errors import ProgrammingError

    cursor = session.cursor()
    numbers = "(select seq4() i from table(generator(rowcount => 1000000)))"
    begun = time.monotonic()
    threading.Timer(0.3, lambda: session._cancel_query("", cursor._request_id)).start()  # noqa: SLF001 - as the service does
    with pytest.raises(ProgrammingError, match="canceled"):
        cursor.execute(f"select sum(a.i * b.i) from {numbers} a, {numbers} b")
    assert time.monotonic() - begun < 10
    assert cursor.execute("select 1").fetchall() == [(1,)]
