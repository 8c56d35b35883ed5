"""The service as clients meet it: browsing, handles, credentials, policies, TLS, and what is recorded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions, dbapi
from google.protobuf import any_pb2, descriptor_pb2
from pyarrow import flight

from api.audit_store import AuditQuestion, AuditStore
from api.flight.wire import flight_pb2, flight_sql_pb2
from api.state import open_state
from tests.api.flight.flown import Flown, fly
from tests.api.flight.sdk import (
    AsyncADBCClient,
    AuthError,
    GroupByParam,
    GroupByType,
    OrderByGroupBy,
    OrderByMetric,
    QueryFailedError,
    SyncADBCClient,
)
from tests.api.flight.test_statements import BY_MONTH, rest_rows
from tests.conftest import REPOSITORY, Published

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  chicago:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  narrow: {metrics: [total_revenue], dimensions: [metric_time, "product__*"]}
  discreet: {metrics: ["*"], dimensions: ["*"], hashed: [customer__location]}
  busy: {metrics: ["*"], dimensions: ["*"], requests_per_minute: 2}
  brief: {metrics: ["*"], dimensions: ["*"], max_rows: 6}
  floored: {metrics: ["*"], dimensions: ["*"], min_customers: 5}
"""

BY_PLACE = "SELECT customer__location, SUM(total_revenue) AS r FROM ALL GROUP BY 1 ORDER BY 1"
REVENUE = {
    "metrics": ["total_revenue"],
    "group_by": ["customer__location"],
    "order_by": [{"field": "customer__location"}],
}


@pytest.fixture(scope="module")
async def ruled(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Flown]:
    """A service under the policy, with a state of its own."""
    folder = tmp_path_factory.mktemp("ruled")
    (folder / "policy.yml").write_text(POLICY)
    async with AsyncExitStack() as stack:
        yield await fly(
            synthetic, stack, policy_file=folder / "policy.yml", state_url=f"sqlite:///{folder / 'state.db'}"
        )


def command(message: Any) -> bytes:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed.SerializeToString()


def options(key: str) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {key}".encode())])


async def test_a_browser_finds_catalog_schema_tables_and_columns(flown: Flown) -> None:
    def walk(connection: dbapi.Connection) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = connection.adbc_get_objects(depth="all").read_all().to_pylist()
        return found

    (catalog,) = await flown.with_connection(walk)
    (schema,) = catalog["catalog_db_schemas"]
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}

    assert (catalog["catalog_name"], schema["db_schema_name"]) == ("insight", "METRICS")
    assert set(tables) == {
        "ALL",
        "revenue_by_month",
        "revenue_by_category",
        "marketing_performance",
        "segment_overview",
    }
    columns = [column["column_name"] for column in tables["ALL"]["table_columns"]]
    assert {"total_revenue", "customer__location", "metric_time__month", "product"} <= set(columns)
    saved = [column["column_name"] for column in tables["revenue_by_category"]["table_columns"]]
    assert saved == ["product__category", "total_revenue", "gross_revenue", "discount_rate", "units_sold"]


async def test_a_column_has_the_type_that_its_answer_has(flown: Flown) -> None:
    def types(connection: dbapi.Connection) -> pa.Schema:
        return connection.adbc_get_table_schema("ALL", db_schema_filter="METRICS")

    listed = await flown.with_connection(types)
    for columns in (
        "metric_time__month, total_revenue, revenue_mtd, churn_rate",
        "customer, units_sold, customer_count",
    ):
        answered = (await flown.table(f"SELECT {columns} FROM ALL LIMIT 1")).schema
        assert [listed.field(field.name).type for field in answered] == [field.type for field in answered]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"table_name_filter_pattern": "revenue\\_%"}, []),
        ({"table_name_filter_pattern": "revenue_%"}, ["revenue_by_category", "revenue_by_month"]),
        ({"table_name_filter_pattern": "%" * 150 + "x"}, []),
        ({"table_types": ["VIEW"]}, []),
        ({"db_schema_filter_pattern": "other"}, []),
        ({"catalog": "other"}, []),
    ],
)
async def test_tables_are_found_by_patterns(flown: Flown, asked: dict[str, Any], found: list[str]) -> None:
    packed = command(flight_sql_pb2.CommandGetTables(**asked))

    def names() -> list[str]:
        with flown.client() as client:
            info = client.get_flight_info(flight.FlightDescriptor.for_command(packed), options(flown.key))
            table = client.do_get(info.endpoints[0].ticket, options(flown.key)).read_all()
        assert table.schema == info.schema
        return list(table.column("table_name").to_pylist())

    assert await asyncio.to_thread(names) == found


async def test_every_description_has_the_schema_of_its_rows(flown: Flown) -> None:
    commands = [
        flight_sql_pb2.CommandGetSqlInfo(),
        flight_sql_pb2.CommandGetCatalogs(),
        flight_sql_pb2.CommandGetDbSchemas(),
        flight_sql_pb2.CommandGetTableTypes(),
        flight_sql_pb2.CommandGetTables(include_schema=True),
        flight_sql_pb2.CommandGetPrimaryKeys(table="ALL"),
        flight_sql_pb2.CommandGetExportedKeys(table="ALL"),
        flight_sql_pb2.CommandGetImportedKeys(table="ALL"),
        *(flight_sql_pb2.CommandStatementQuery(query=each) for each in (BY_MONTH, BY_PLACE)),
        flight_sql_pb2.CommandStatementQuery(query="SELECT name FROM {{ semantic_layer.metrics() }}"),
        flight_sql_pb2.CommandStatementQuery(
            query="{{ semantic_layer.query(metrics=['total_revenue'],compile=True) }}"
        ),
        flight_sql_pb2.CommandStatementQuery(
            query="{{ semantic_layer.dimension_values(group_by='customer__location',metrics=[]) }}"
        ),
    ]

    def compare() -> None:
        with flown.client() as client:
            for each in commands:
                descriptor = flight.FlightDescriptor.for_command(command(each))
                info = client.get_flight_info(descriptor, options(flown.key))
                table = client.do_get(info.endpoints[0].ticket, options(flown.key)).read_all()
                assert table.schema == info.schema == client.get_schema(descriptor, options(flown.key)).schema

    await asyncio.to_thread(compare)


async def test_pyarrow_s_own_client_reads_an_answer(flown: Flown) -> None:
    packed = command(flight_sql_pb2.CommandStatementQuery(query=BY_PLACE))

    def read() -> pa.Table:
        with flown.client() as client:
            info = client.get_flight_info(flight.FlightDescriptor.for_command(packed), options(flown.key))
            return client.do_get(info.endpoints[0].ticket, options(flown.key)).read_all()

    rows = (await asyncio.to_thread(read)).to_pylist()
    assert [tuple(row.values()) for row in rows] == [tuple(row.values()) for row in await rest_rows(flown, REVENUE)]


async def test_a_handle_of_one_replica_is_answered_by_another(flown: Flown, synthetic: Published) -> None:
    request = command(flight_sql_pb2.ActionCreatePreparedStatementRequest(query=BY_MONTH))

    def prepare() -> bytes:
        with flown.client() as client:
            (result,) = client.do_action(("CreatePreparedStatement", request), options(flown.key))
        packed = any_pb2.Any.FromString(result.body.to_pybytes())
        made = flight_sql_pb2.ActionCreatePreparedStatementResult.FromString(packed.value)
        assert pa.ipc.read_schema(pa.py_buffer(made.dataset_schema)).names == ["metric_time__month", "total_revenue"]
        return bytes(made.prepared_statement_handle)

    def use(other: Flown, handle: bytes) -> pa.Table:
        packed = command(flight_sql_pb2.CommandPreparedStatementQuery(prepared_statement_handle=handle))
        with other.client() as client:
            info = client.get_flight_info(flight.FlightDescriptor.for_command(packed), options(other.key))
            table = client.do_get(info.endpoints[0].ticket, options(other.key)).read_all()
            body = flight_sql_pb2.ActionClosePreparedStatementRequest(prepared_statement_handle=handle)
            assert list(client.do_action(("ClosePreparedStatement", command(body)), options(other.key))) == []
            return table

    handle = await asyncio.to_thread(prepare)
    async with AsyncExitStack() as stack:
        other = await fly(synthetic, stack)
        assert await asyncio.to_thread(use, other, handle) == await flown.table(BY_MONTH)


async def test_a_handle_gives_no_rights(ruled: Flown) -> None:
    ticket = flight.Ticket(command(flight_sql_pb2.TicketStatementQuery(statement_handle=BY_PLACE.encode())))

    def read(key: str) -> pa.Table:
        with ruled.client() as client:
            return client.do_get(ticket, options(key)).read_all()

    with pytest.raises(flight.FlightUnauthenticatedError):
        await asyncio.to_thread(read, "mi_none_of_ours")
    with pytest.raises(pa.ArrowInvalid, match="unknown_column"):
        await asyncio.to_thread(read, ruled.key_of("narrow"))


async def test_what_is_no_command_is_refused(flown: Flown) -> None:
    def refused(ticket: bytes) -> str:
        with flown.client() as client, pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError)) as caught:
            client.do_get(flight.Ticket(ticket), options(flown.key)).read_all()
        return str(caught.value)

    def refused_action(name: str, body: bytes) -> str:
        with flown.client() as client, pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError)) as caught:
            list(client.do_action((name, body), options(flown.key)))
        return str(caught.value)

    foreign = any_pb2.Any(type_url="type.googleapis.com/x.Y", value=b"")
    unknown = any_pb2.Any(type_url="type.googleapis.com/arrow.flight.protocol.sql.CommandStatementUpdate", value=b"")
    handle = flight_sql_pb2.TicketStatementQuery(statement_handle=b"\xff\xfe")
    for ticket, code in (
        (b"", "unreadable_command"),
        (b"\xff\xff\xff", "unreadable_command"),
        (foreign.SerializeToString(), "unreadable_command"),
        (unknown.SerializeToString(), "unsupported_call"),
        (command(handle), "invalid_handle"),
    ):
        assert f"[{code}]" in await asyncio.to_thread(refused, ticket)
    assert "[unsupported_call]" in await asyncio.to_thread(refused_action, "BeginTransaction", b"")
    assert "[unreadable_command]" in await asyncio.to_thread(refused_action, "CreatePreparedStatement", b"\xff")


async def test_the_actions_are_listed(flown: Flown) -> None:
    def names() -> set[str]:
        with flown.client() as client:
            return {action.type for action in client.list_actions(options(flown.key))}

    assert await asyncio.to_thread(names) == {"CreatePreparedStatement", "ClosePreparedStatement", "CloseSession"}


@pytest.mark.parametrize("key", ["", "mi_wrong", "ey.no.token"])
async def test_nobody_is_let_in_without_a_valid_key(flown: Flown, key: str) -> None:
    def refusal() -> str:
        shown = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {key}"} if key else {}
        with dbapi.connect(flown.uri, db_kwargs=shown, autocommit=True) as connection, connection.cursor() as cursor:
            with pytest.raises(dbapi.Error) as caught:
                cursor.execute(BY_MONTH)
            return str(caught.value)

    assert (await asyncio.to_thread(refusal)).startswith("UNAUTHENTICATED")


async def test_a_client_that_logs_in_shows_the_key_as_its_password(flown: Flown) -> None:
    def log_in(password: str) -> pa.Table:
        with flown.client() as client:
            token = client.authenticate_basic_token("1", password)
            packed = command(flight_sql_pb2.CommandStatementQuery(query=BY_MONTH))
            shown = flight.FlightCallOptions(headers=[token])
            info = client.get_flight_info(flight.FlightDescriptor.for_command(packed), shown)
            return client.do_get(info.endpoints[0].ticket, shown).read_all()

    assert await asyncio.to_thread(log_in, flown.key) == await flown.table(BY_MONTH)
    with pytest.raises(flight.FlightUnauthenticatedError):
        await asyncio.to_thread(log_in, "mi_wrong")


@pytest.mark.parametrize("role", ["admin", "chicago", "discreet"])
async def test_every_role_gets_just_what_rest_gives_it(ruled: Flown, role: str) -> None:
    key = ruled.key_of(role)

    answered = (await ruled.table("SELECT customer__location, total_revenue FROM ALL", key=key)).to_pylist()

    expected = await rest_rows(ruled, {name: REVENUE[name] for name in ("metrics", "group_by")}, key=key)
    assert [tuple(row.values()) for row in answered] == [tuple(row.values()) for row in expected]
    assert (len(answered) == 1) == (role == "chicago")


async def test_what_is_hidden_from_a_role_is_not_browsed_nor_listed_nor_answered(ruled: Flown) -> None:
    key = ruled.key_of("narrow")

    def columns(connection: dbapi.Connection) -> list[str]:
        return list(connection.adbc_get_table_schema("ALL", db_schema_filter="METRICS").names)

    listed = await ruled.table("SELECT NAME FROM {{ semantic_layer.metrics() }}", key=key)
    browsed = await ruled.with_connection(columns, key=key)

    assert listed.column(0).to_pylist() == ["total_revenue"]
    assert [name for name in browsed if not name.startswith(("metric_time", "product"))] == ["total_revenue"]
    assert "[unknown_metric]" in await ruled.refusal("{{ semantic_layer.query(metrics=['order_count']) }}", key=key)
    refused = await ruled.refusal("{{ semantic_layer.query(metrics=['total_revenue'],compile=True) }}", key=key)
    assert refused.startswith("UNAUTHORIZED")
    assert "[sql_forbidden]" in refused


async def test_a_select_around_a_call_sees_no_more_rows_than_the_role(ruled: Flown) -> None:
    inner = "{{ semantic_layer.query(metrics=['total_revenue'],group_by=['customer__location']) }}"

    table = await ruled.table(f"SELECT COUNT(*) AS n FROM {inner}", key=ruled.key_of("chicago"))

    assert table.to_pylist() == [{"n": 1}]


async def test_a_role_gets_no_more_rows_than_it_may_and_none_are_left_out_silently(ruled: Flown) -> None:
    brief = ruled.key_of("brief")
    values = "{{ semantic_layer.dimension_values(group_by='customer__location',metrics=[]) }}"

    def read(statement: str) -> pa.Table:
        with ruled.connection(brief) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetch_arrow_table()

    assert (await ruled.table(values, key=brief)).num_rows == 5
    assert (await ruled.table("SELECT * FROM revenue_by_month LIMIT 6", key=brief)).num_rows == 6
    assert "[invalid_limit]" in await ruled.refusal("SELECT * FROM revenue_by_month LIMIT 7", key=brief)
    with pytest.raises((dbapi.Error, OSError, pa.ArrowInvalid), match="export_too_large"):
        await asyncio.to_thread(read, "SELECT * FROM revenue_by_month")


async def test_a_floor_holds_over_flight(ruled: Flown) -> None:
    key = ruled.key_of("floored")
    asked = {"metrics": ["total_revenue"], "group_by": ["customer__location", "product__category"]}

    table = await ruled.table("SELECT customer__location, product__category, total_revenue FROM ALL", key=key)
    whole = await ruled.table("SELECT customer__location, product__category, total_revenue FROM ALL")

    assert [tuple(row.values()) for row in table.to_pylist()] == [
        tuple(row.values()) for row in await rest_rows(ruled, asked, key=key)
    ]
    assert table.num_rows < whole.num_rows


async def test_calls_count_as_requests(ruled: Flown) -> None:
    key = ruled.key_of("busy")

    refusals = [await ruled.refusal(BY_PLACE, key=key) for _ in range(2)]

    assert any("[too_many_requests]" in refusal or "requests" in refusal for refusal in refusals)
    assert any(refusal.startswith("UNKNOWN") or "ResourceExhausted" in refusal for refusal in refusals), refusals


async def test_a_question_leaves_the_record_that_it_leaves_over_rest(ruled: Flown) -> None:
    key = ruled.key_of("chicago")
    await rest_rows(ruled, REVENUE, key=key)
    statement = (
        "{{ semantic_layer.query(metrics=['total_revenue'],group_by=['customer__location'],"
        "order_by=['customer__location']) }}"
    )
    await ruled.table(statement, key=key)
    await ruled.refusal("{{ semantic_layer.query(metrics=['invented']) }}", key=key)

    records = await _records(ruled, key)
    over = {each["transport"]: each for each in records if each["action"] == "run_query"}

    same = (
        "principal_id",
        "role",
        "action",
        "what",
        "decision",
        "status",
        "rows",
        "publication",
        "sql_hash",
    )
    assert [over["flight"][name] for name in same] == [over["rest"][name] for name in same]
    assert over["flight"]["cache"] == "hit"
    refused = next(each for each in records if each["code"] == "unknown_metric")
    assert [each["action"] for each in records if each["decision"] == "refused"] == ["prepare_statement"]
    assert (refused["transport"], refused["action"], refused["code"]) == (
        "flight",
        "prepare_statement",
        "unknown_metric",
    )
    assert refused["what"]["statement"] == "{{ semantic_layer.query(metrics=['invented']) }}"


async def _records(flown: Flown, key: str) -> list[dict[str, Any]]:
    async with flown.rest() as client, asyncio.timeout(30):
        while "insight_audit_backlog 0.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    state = open_state(flown.state_url)
    found = AuditStore(state).newest(AuditQuestion(), limit=10_000)
    state.dispose()
    return [each for each in found if each["principal_id"] and key.startswith(f"mi_{each['principal_id']}_")]


# As with the hosted service, which has no transactions either.
@pytest.mark.filterwarnings("ignore:Cannot disable autocommit")
async def test_the_sdk_s_sync_and_async_clients_query_and_list_values(flown: Flown) -> None:
    url = f"grpc://{{server_host}}:{flown.port}"
    asked: dict[str, Any] = {
        "metrics": ["total_revenue"],
        "group_by": [
            GroupByParam(name="metric_time", type=GroupByType.TIME_DIMENSION, grain="month"),
            "customer__gender",
        ],
        "where": ["{{ Dimension('customer__location') }} = 'Chicago'"],
        "order_by": [OrderByMetric(name="total_revenue", descending=True), OrderByGroupBy("metric_time", "month")],
        "limit": 5,
    }

    def run() -> list[pa.Table]:
        with SyncADBCClient("127.0.0.1", 1, flown.key, url_format=url).session() as client:
            tables = [client.query(**asked), client.query(saved_query="revenue_by_month")]
            tables.append(client.dimension_values(metrics=["total_revenue"], group_by="customer__location"))
            with pytest.raises(QueryFailedError, match="Did you mean total_revenue"):
                client.query(metrics=["total_revenu"])
        stranger = SyncADBCClient("127.0.0.1", 1, "mi_wrong", url_format=url)
        with stranger.session(), pytest.raises(AuthError):
            stranger.query(metrics=["total_revenue"])
        return tables

    async def run_async() -> list[pa.Table]:
        async with AsyncADBCClient("127.0.0.1", 1, flown.key, url_format=url).session() as client:
            values = await client.dimension_values(metrics=["total_revenue"], group_by="customer__location")
            return [await client.query(**asked), await client.query(saved_query="revenue_by_month"), values]

    tables = await asyncio.to_thread(run)
    # In a loop of its own: the SDK blocks its loop while it connects, and the service is in this one.
    assert await asyncio.to_thread(asyncio.run, run_async()) == tables
    assert tables[0].column_names == ["metric_time__month", "customer__gender", "total_revenue"]
    assert [table.num_rows for table in tables] == [5, 12, 5]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of this machine, signed by itself, and its key."""
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    request = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


async def test_over_tls_the_certificate_is_checked(synthetic: Published, certificate: tuple[Path, Path]) -> None:
    own, key = certificate
    async with AsyncExitStack() as stack:
        served = await fly(synthetic, stack, tls_cert_file=own, tls_key_file=key)

        def read(**trust: str) -> pa.Table:
            with served.connection(**trust) as connection, connection.cursor() as cursor:
                cursor.execute(BY_MONTH)
                return cursor.fetch_arrow_table()

        trusted = {DatabaseOptions.TLS_ROOT_CERTS.value: own.read_text()}
        assert (await asyncio.to_thread(lambda: read(**trusted))).num_rows == 12
        with pytest.raises(dbapi.Error, match="certificate"):
            await asyncio.to_thread(read)


@pytest.mark.parametrize("name", ["flight", "flight_sql"])
def test_the_generated_messages_are_those_of_the_proto_files(name: str, tmp_path: Path) -> None:
    out = tmp_path / "messages.bin"
    source = f"api/flight/wire/{name}.proto"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}", source]
    subprocess.run(protoc, check=True, cwd=REPOSITORY)

    (described,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto()
    module = flight_pb2 if name == "flight" else flight_sql_pb2
    module.DESCRIPTOR.CopyToProto(generated)
    described.ClearField("source_code_info")
    for message in (described, generated):
        for each in message.message_type:
            for part in each.field:
                part.ClearField("json_name")
    assert generated == described
