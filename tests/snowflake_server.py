"""The process of the emulated Snowflake account: fakesnow's server, and what closes its gaps; see `tests.snowflake`."""

# ruff: noqa: SLF001 - the gaps are inside of it

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot
import uvicorn
from fakesnow import arrow, cursor
from snowflake.connector.errors import DatabaseError, ProgrammingError
from sqlglot import exp

_OBJECTS = r"ROLE|DATABASE ROLE|USER|WAREHOUSE|RESOURCE MONITOR|MASKING POLICY|ROW ACCESS POLICY|TAG|STREAM|TASK|PIPE"
_DOES_NOTHING = (
    r"\s*(GRANT|REVOKE|COMMENT|EXECUTE|CALL|UNDROP)\b",
    r"\s*USE\s+(ROLE|WAREHOUSE|SECONDARY)\b",
    rf"\s*(CREATE|DROP|ALTER)\s+(OR\s+REPLACE\s+)?({_OBJECTS}|NETWORK POLICY|SECURITY INTEGRATION)\b",
    r"\s*ALTER\s+(ACCOUNT|DATABASE|SCHEMA)\b",
    r"\s*ALTER\s+SESSION\s+(UN)?SET\s+(?!AUTOCOMMIT)",
    r"\s*ALTER\s+(TABLE|VIEW)\b.*\b(CLUSTER\s+BY|POLICY|SET\s+(TAG|DATA_RETENTION|MAX_DATA|CHANGE_TRACK))",
)
_KEYS = (exp.PrimaryKey, exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint, exp.ForeignKey, exp.Reference)
# Does nothing like the rest, but stumbles over the parser before it is found to.
_UNPARSED = re.compile(r"\s*CREATE\s+ROW\s+ACCESS\s+POLICY\b.*", re.IGNORECASE | re.DOTALL)
_SESSION = {"WAREHOUSE": "LOADING", "ROLE": "TRANSFORMER", "ACCOUNT": "EMULATED", "SESSION": "1", "REGION": "LOCAL"}


def _serve(port: int, record: Path) -> None:
    server = import_module("fakesnow.server")  # the package has a function of that name
    _close_gaps(server)
    server.shared_fs.nop_regexes = list(_DOES_NOTHING)
    running: dict[str, Any] = {}
    handlers = {route.path: route.endpoint for route in server.routes}

    async def query(request: Any) -> Any:
        sent, connection = await _read(request), server.to_conn(server.to_token(request))
        told = {"sql": sent["sqlText"], "parameters": sent.get("parameters"), "bindings": sent.get("bindings")}
        with record.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(told | {"database": connection.database}) + "\n")
        request_id = request.query_params["requestId"]
        running[request_id] = connection
        try:
            return await handlers["/queries/v1/query-request"](request)
        finally:
            del running[request_id]

    async def abort(request: Any) -> Any:
        if (connection := running.get((await _read(request))["requestId"])) is not None:
            connection._duck_conn.interrupt()
        return server.JSONResponse({"success": True, "data": None, "code": None, "message": None})

    def end_transactions(request: Any) -> Any:
        for session in server.sessions.values():
            if session.database == request.path_params["database"] and session._in_transaction:
                session._duck_conn.rollback()
                session._in_transaction = False
        return server.JSONResponse({"success": True})

    own = {"/queries/v1/query-request": query, "/queries/v1/abort-request": abort}
    routes = [
        server.Route("/emulator/end-transactions/{database}", end_transactions, methods=["POST"]),
        *(server.Route(each.path, own.get(each.path, each.endpoint), methods=each.methods) for each in server.routes),
    ]
    uvicorn.run(server.Starlette(routes=routes), host="127.0.0.1", port=port, log_level="warning")


async def _read(request: Any) -> Any:
    body = await request.body()
    return json.loads(gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body)


def _close_gaps(server: Any) -> None:
    parse, execute, ask = cursor.parse_one, cursor.FakeSnowflakeCursor._execute, cursor.FakeSnowflakeCursor.execute

    def parse_one(command: str) -> Any:
        return _rewritten(parse(_explained(_UNPARSED.sub("SELECT 'done' AS \"status\"", command))))

    def run(self: Any, statement: Any, params: Any = None) -> None:
        try:
            for each in _steps(self, statement, params):
                execute(self, *each)
        except duckdb.InterruptException as error:
            raise ProgrammingError(msg="SQL execution canceled", errno=604, sqlstate="57014") from error
        except duckdb.TransactionException as error:  # where Snowflake would wait for the lock, and give up some time
            raise ProgrammingError(msg=str(error), errno=625, sqlstate="57014") from error

    def answer(self: Any, *words: Any, **options: Any) -> Any:
        try:
            return ask(self, *words, **options)
        except DatabaseError:
            raise
        except Exception as error:  # else a 500, which the connector asks again and again
            raise ProgrammingError(msg=f"{type(error).__name__}: {error}", errno=100_000, sqlstate="22000") from error

    cursor.parse_one = server.parse_one = parse_one
    cursor.FakeSnowflakeCursor._execute, cursor.FakeSnowflakeCursor.execute = run, answer
    cursor.transforms.numeric_agg_implicit_cast = lambda node: node  # it makes every sum of decimals a float
    cursor.transforms.merge = lambda expression: [expression]  # DuckDB has a MERGE of its own by now
    arrow.timestamp_to_sf_struct = partial(_with_nulls, arrow.timestamp_to_sf_struct)
    server.from_binding = partial(_bound, server.from_binding)


def _with_nulls(to_struct: Any, ts: Any) -> Any:
    """The timestamps as the protocol has them, nulls included, which are 1970-01-01 otherwise."""
    made, nulls = to_struct(ts.fill_null(0)), ts.combine_chunks().is_null()
    return pa.StructArray.from_arrays(
        [made.field(i) for i in range(made.type.num_fields)],
        fields=[made.type.field(i) for i in range(made.type.num_fields)],
        mask=nulls,
    )


def _bound(from_binding: Any, sent: dict[str, Any]) -> Any:
    match sent["type"], sent["value"]:
        case _, None:
            return None
        case "FIXED", text if "." in text or "E" in text.upper():
            return Decimal(text)
        case "REAL", text:
            return float(text)
        case "TIMESTAMP_NTZ", _:
            return from_binding(sent).replace(tzinfo=None)
    return from_binding(sent)


def _explained(command: str) -> str:
    """EXPLAIN answers every table as one partition, as a small one is on Snowflake."""
    if not (asked := re.match(r"\s*EXPLAIN\s+USING\s+JSON\s+(.*)", command, re.IGNORECASE | re.DOTALL)):
        return command
    tables = {each.sql() for each in sqlglot.parse_one(asked[1], read="snowflake").find_all(exp.Table) if each.db}
    scans = [
        {"operation": "TableScan", "objects": [each], "partitionsTotal": 1, "partitionsAssigned": 1}
        for each in sorted(tables)
    ]
    plan = json.dumps({"GlobalStats": {"partitionsTotal": len(scans)}, "Operations": [scans]}).replace("'", "''")
    return f"SELECT '{plan}' AS \"content\""


def _rewritten(statement: Any) -> Any:
    """What a session is asked of itself answered; tables without keys, which DuckDB would enforce, and, where they have
    a schema, never temporary."""

    def known(node: Any) -> Any:
        name = node.sql().upper().removesuffix("()").removeprefix("CURRENT_") if isinstance(node, exp.Func) else ""
        if name == "SYSDATE":
            return exp.cast(exp.CurrentTimestamp(), "timestamp")
        return exp.Literal.string(_SESSION[name]) if name in _SESSION else node

    if isinstance(statement, exp.Create):
        for key in list(statement.find_all(*_KEYS)):
            (key.parent if isinstance(key.parent, exp.Constraint | exp.ColumnConstraint) else key).pop()
        if (made := statement.find(exp.Table)) is not None and made.db:
            for mark in list(statement.find_all(exp.TemporaryProperty)):
                mark.pop()
    return statement.transform(known)


def _steps(cursor: Any, statement: Any, params: Any) -> Iterator[tuple[Any, Any]]:
    """What DuckDB has to run for the statement."""
    if isinstance(statement, exp.Merge):
        if not cursor._conn._autocommit and not cursor._conn._in_transaction:
            cursor._duck_conn.begin()
            cursor._conn._in_transaction = True
        ((count,),) = cursor._duck_conn.execute(statement.sql("duckdb"), params).fetchall()
        counted = sqlglot.parse_one(f'SELECT {count} AS "number of rows updated"')
        counted.args["merge_counts"] = True
        yield counted, None
    elif isinstance(statement, exp.Create) and statement.kind == "SCHEMA" and (clone := statement.args.get("clone")):
        source, target = (each.sql() for each in (clone.this, statement.this))
        statement.set("clone", None)
        yield statement, None
        sql = "SELECT table_name FROM duckdb_tables() WHERE concat_ws('.', database_name, schema_name) ILIKE ?"
        whole = source if "." in source else f"{cursor._conn.database}.{source}"
        for (name,) in cursor._duck_conn.execute(sql, [whole]).fetchall():
            cursor._duck_conn.execute(f'CREATE TABLE {target}."{name}" AS FROM {source}."{name}"')
        yield sqlglot.parse_one("SELECT 'Schema successfully created.' AS \"status\""), None
    else:
        yield statement, params


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
