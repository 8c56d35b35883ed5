"""Queries and their results, as the schema shows them."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import pyarrow as pa
import strawberry

from api.answer import Answer
from api.compiler import Column
from api.deferred_query import DeferredQuery, State
from api.errors import Failure, SemanticLayerError
from api.graphql.handles import Handle
from api.graphql.pandas_json import pandas_json
from api.graphql.question_nodes import MetricQueryParamsNode, QueryParamsNode, params
from api.graphql.vocabulary import JsonValue, PandasJsonOrient, QueryStatus, QueryType
from api.observation import Stage, Transport, timed
from api.query import MetricQuery
from api.rest.rows import ARROW, document, rows
from api.wording import worded

PAGE_ROWS = 1024  # what the hosted dbt Semantic Layer puts on a page


@strawberry.type(name="ManifestValidationStep")
class ValidationStepNode:
    """One check of the definitions."""

    description: str
    sql: str
    error: str | None
    warehouse_error: str | None


@strawberry.type(name="ManifestValidationResult")
class ValidationNode:
    """What checking the definitions found; they are checked before they are published, so it is always null."""

    errors: list[str]
    steps: list[ValidationStepNode]


@strawberry.type(name="Column")
class ColumnNode:
    """A column of the result."""

    name: str
    label: str
    kind: str
    type: str | None
    unit: str | None
    grain: str | None


Page: TypeAlias = Callable[[], Awaitable[Answer]]
SqlText: TypeAlias = Callable[[], Awaitable[str | None]]


async def _no_sql() -> str | None:
    return None


@strawberry.type(name="QueryResult")
class QueryResultNode:
    """Where a query stands and, once it is SUCCESSFUL, one page of its rows."""

    handle: strawberry.Private[Handle]
    question: strawberry.Private[MetricQuery | None]
    page: strawberry.Private[Page | None]
    sql_text: strawberry.Private[SqlText] = _no_sql
    query_id: str
    status: QueryStatus
    error: str | None = None
    error_type: str | None = None
    error_hint: str | None = None
    total_pages: int | None = None
    row_count: int | None = None
    _read: strawberry.Private[asyncio.Task[Answer] | None] = None

    @strawberry.field
    async def sql(self) -> str | None:
        """The SQL, its values as named parameters; null for a role that does not see SQL."""
        return await self.sql_text()

    @strawberry.field
    async def arrow_result(self) -> str | None:
        """The page as an Arrow IPC stream, in base64."""
        table = await self._table()
        if table is None:
            return None
        with timed(Stage.RENDER):
            return base64.b64encode(document(ARROW, table)).decode()

    @strawberry.field
    async def json_result(
        self,
        orient: PandasJsonOrient = PandasJsonOrient.TABLE,
        encoded: bool = True,  # noqa: FBT001, FBT002 - dbt's own
    ) -> str | None:
        """The page as pandas writes it, in base64 unless `encoded` is false."""
        table = await self._table()
        if table is None:
            return None
        with timed(Stage.RENDER):
            text = pandas_json(table, orient)
        return (base64.b64encode(text) if encoded else text).decode()

    @strawberry.field
    async def rows(self) -> list[JsonValue] | None:
        """The page as objects, just as REST answers them."""
        table = await self._table()
        return None if table is None else [JsonValue(row) for row in rows(table)]

    @strawberry.field
    async def columns(self) -> list[ColumnNode] | None:
        """What the columns are."""
        answer = await self._answer()
        if answer is None:
            return None
        aliases = self.handle.aliases
        shown = answer.columns if self.handle.kind is QueryType.METRIC else _values(answer)
        return [
            ColumnNode(
                name=aliases.get(item.name, item.name),
                label=item.label,
                kind=item.kind,
                type=item.type,
                unit=item.unit,
                grain=item.grain,
            )
            for item in shown
        ]

    @strawberry.field
    async def publication(self) -> str | None:
        """The version of the data that it ran on."""
        answer = await self._answer()
        return answer.publication if answer else None

    @strawberry.field
    def params(self) -> QueryParamsNode | None:
        """What it asks for; null where another release wrote it down."""
        return params(self.question, self.handle) if self.question else None

    @strawberry.field
    def manifest_validation_result(self) -> ValidationNode | None:
        """Always null here."""
        return None

    async def _table(self) -> pa.Table | None:
        answer = await self._answer()
        if answer is None:
            return None
        table = answer.table
        if self.handle.kind is QueryType.DIMENSION_VALUES:
            table = table.select([item.name for item in _values(answer)])
        aliases = self.handle.aliases
        return table.rename_columns([aliases.get(name, name) for name in table.column_names]) if aliases else table

    async def _answer(self) -> Answer | None:
        """The page, read once however many fields show it."""
        if self.page is None:
            return None
        if self._read is None:
            self._read = asyncio.ensure_future(self.page())
        return await self._read


def _values(answer: Answer) -> list[Column]:
    return [item for item in answer.columns if item.kind != "metric"]


def answered(
    answer: Answer, question: MetricQuery, handle: Handle, *, number: int, sql_text: SqlText
) -> QueryResultNode:
    """A page of an answer that is at hand."""
    count = max(1, math.ceil(answer.table.num_rows / PAGE_ROWS))

    async def page() -> Answer:
        return replace(answer, table=answer.table.slice((number - 1) * PAGE_ROWS, PAGE_ROWS))

    return QueryResultNode(
        handle=handle,
        question=question,
        page=page,
        sql_text=sql_text,
        query_id=answer.query_id,
        status=QueryStatus.SUCCESSFUL,
        total_pages=count,
        row_count=answer.table.num_rows,
    )


def stored(query: DeferredQuery, handle: Handle, *, page: Page, sql_text: SqlText, page_rows: int) -> QueryResultNode:
    """A long query as it stands, and the page of it."""
    is_there = query.state is State.SUCCEEDED
    failure = query.failure or (_CANCELLED if query.state is State.CANCELLED else None)
    return QueryResultNode(
        handle=handle,
        question=query.question,
        page=page if is_there else None,
        sql_text=_no_sql if failure else sql_text,
        query_id=str(handle),
        status=STATUSES[query.state],
        error=told(failure) if failure else None,
        error_type=failure.code if failure else None,
        error_hint=worded(failure.hint, Transport.GRAPHQL) if failure else None,
        total_pages=max(1, math.ceil((query.row_count or 0) / page_rows)) if is_there else None,
        row_count=query.row_count,
    )


def refused(handle: Handle, failure: Failure) -> QueryResultNode:
    """A question that was not taken, as its client polls for it."""
    return QueryResultNode(
        handle=handle,
        question=None,
        page=None,
        query_id=str(handle),
        status=QueryStatus.FAILED,
        error=told(failure),
        error_type=failure.code,
        error_hint=worded(failure.hint, Transport.GRAPHQL),
    )


def told(failure: Failure | SemanticLayerError) -> str:
    """What went wrong and what to do next, in one text: most clients show their user no more than that."""
    stop = "" if failure.detail.endswith(".") else "."
    return f"{failure.detail}{stop} {worded(failure.hint, Transport.GRAPHQL)}"


@strawberry.type(name="SemanticLayerQueryDetails")
class LayerQueryDetailsNode:
    """A query of metrics."""

    params: MetricQueryParamsNode | None


@strawberry.type(name="RawSqlQueryDetails")
class RawSqlQueryDetailsNode:
    """A query of SQL; there are none here, as nobody can send SQL."""

    query_str: str | None
    compiled_sql: str | None
    num_cols: int | None
    query_description: str | None
    query_title: str | None


QueryDetails: TypeAlias = Annotated[LayerQueryDetailsNode | RawSqlQueryDetailsNode, strawberry.union("QueryDetails")]


@strawberry.type(name="QueryRecord")
class QueryRecordNode:
    """A query of the caller's own."""

    query_id: str
    status: QueryStatus
    start_time: str | None
    end_time: str | None
    connection_details: str | None
    sql_dialect: str | None
    connection_schema: str | None
    error: str | None
    query_details: QueryDetails | None

    @classmethod
    def of(cls, query: DeferredQuery, *, dialect: str) -> QueryRecordNode:
        """The query as recorded; what its handle knew besides is not kept."""
        asked = params(query.question, Handle(query_id=query.query_id)) if query.question else None
        return cls(
            query_id=query.query_id,
            status=STATUSES[query.state],
            start_time=_time(query.started_at),
            end_time=_time(query.finished_at),
            connection_details=None,
            sql_dialect=dialect,
            connection_schema=None,
            error=told(query.failure) if query.failure else None,
            query_details=LayerQueryDetailsNode(params=asked) if isinstance(asked, MetricQueryParamsNode) else None,
        )


def _time(at: datetime | None) -> str | None:
    return at.replace(tzinfo=UTC).isoformat() if at else None


STATUSES: Mapping[State, QueryStatus] = {
    State.QUEUED: QueryStatus.PENDING,
    State.RUNNING: QueryStatus.RUNNING,
    State.SUCCEEDED: QueryStatus.SUCCESSFUL,
    State.FAILED: QueryStatus.FAILED,
    State.CANCELLED: QueryStatus.FAILED,
}
_CANCELLED = Failure(
    status=409,
    title="Not in this state",
    code="query_cancelled",
    detail="The query was cancelled",
    hint="Create it again.",
)
