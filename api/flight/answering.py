"""Statements answered through `SemanticLayer`: the columns before anything runs, and then the rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pyarrow as pa

from api.errors import InvalidQuery
from api.filters import Comparison, Operator
from api.flight.around import Around, parse_around
from api.flight.asking import asked
from api.flight.calls import not_understood
from api.flight.question import Asked, Compilation, Listing, Question, ValuesOf
from api.flight.statement import CallStatement, TableStatement, parse_statement
from api.flight.tables import translated
from api.observation import observed
from api.policy import Principal
from api.query import MetricQuery, PageLimits
from api.service import SemanticLayer

_COMPILED = pa.schema([pa.field("SQL", pa.string(), nullable=False)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of an answer, table by table, each of the schema."""

    schema: pa.Schema
    tables: AsyncIterator[pa.Table]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Understood:
    asked: Asked
    around: Around | None


class Answering:
    """Answers statements of the callers of one service.

    Parameters
    ----------
    pages
        How many rows an answer has that may be kept; one with more is computed while it is read.
    """

    def __init__(self, layer: SemanticLayer, *, pages: PageLimits) -> None:
        self._layer = layer
        self._pages = pages

    async def schema(self, principal: Principal, statement: str) -> pa.Schema:
        """The columns of the answer; nothing runs, but whatever can be refused beforehand is.

        Raises
        ------
        SemanticLayerError
            The statement is not understood, or as `SemanticLayer.schema` says.
        """
        understood = self._understood(principal, statement)
        schema = await self._schema_of(principal, understood.asked)
        if understood.around is None:
            return schema
        return (await understood.around.over(schema.empty_table())).schema

    @asynccontextmanager
    async def rows(self, principal: Principal, statement: str) -> AsyncIterator[Rows]:
        """The answer; where it is large, it is computed for the length of the block, while it is taken.

        Raises
        ------
        SemanticLayerError
            The statement is not understood, or as `SemanticLayer.query` and `export` say.
        """
        understood = self._understood(principal, statement)
        _note(understood)
        async with self._rows_of(principal, understood.asked) as rows:
            around = understood.around
            yield rows if around is None else whole(await around.over(await self._few(rows, first=around.first)))

    def _understood(self, principal: Principal, text: str) -> _Understood:
        statement = parse_statement(text)
        catalog = self._layer.catalog(principal)
        try:
            match statement:
                case CallStatement(call=call, around=around):
                    asks = asked(call, catalog, self._layer.definitions(principal))
                    return _Understood(asked=asks, around=None if around is None else parse_around(around))
                case TableStatement(sql=sql):
                    return _Understood(asked=translated(sql, catalog), around=None)
        except RecursionError as error:
            raise InvalidQuery(
                "The statement is nested too deeply", hint="Ask for less at once.", code="unsupported_statement"
            ) from error

    async def _schema_of(self, principal: Principal, asked: Asked) -> pa.Schema:
        match asked:
            case Question(query=query):
                schema = await self._layer.schema(principal, query)
                return asked.rows(schema.empty_table()).schema
            case Compilation(query=query):
                await self._layer.compile(principal, query)
                return _COMPILED
            case ValuesOf():
                return pa.schema([(await self._layer.schema(principal, _of_values(asked)))[0]])
            case Listing(rows=rows):
                return rows.schema

    @asynccontextmanager
    async def _rows_of(self, principal: Principal, asked: Asked) -> AsyncIterator[Rows]:
        match asked:
            case Question():
                async with self._answer(principal, asked) as rows:
                    yield rows
            case Compilation(query=query):
                compiled = await self._layer.compile(principal, query)
                yield whole(pa.table([[compiled.sql]], schema=_COMPILED))
            case ValuesOf():
                async with self._values(principal, asked) as rows:
                    yield rows
            case Listing(rows=table):
                yield whole(table)

    @asynccontextmanager
    async def _answer(self, principal: Principal, question: Question) -> AsyncIterator[Rows]:
        """A kept or keepable answer where it fits into one, else all of its rows while they are computed."""
        query = question.query
        if query.limit is None or query.limit <= self._pages.max_rows:
            answer = await self._layer.query(principal, query, use=question.use)
            if query.limit is not None or not answer.is_truncated:
                yield whole(question.rows(answer.table))
                return
        async with self._exported(principal, question) as rows:
            yield rows

    @asynccontextmanager
    async def _exported(self, principal: Principal, question: Question) -> AsyncIterator[Rows]:
        async with self._layer.export(principal, question.query) as export:
            schema = question.rows(export.rows.schema.empty_table()).schema
            yield Rows(schema=schema, tables=(question.rows(table) async for table in export.rows))

    @asynccontextmanager
    async def _values(self, principal: Principal, asked: ValuesOf) -> AsyncIterator[Rows]:
        answer = await self._layer.dimension_values(
            principal, asked.dimension, metrics=asked.metrics, search=asked.search, limit=None
        )
        if not answer.is_truncated:
            yield whole(answer.table)
            return
        async with self._layer.export(principal, _of_values(asked)) as export:
            schema = export.rows.schema.empty_table().select([0]).schema
            yield Rows(schema=schema, tables=(_present(table) async for table in export.rows))

    async def _few(self, rows: Rows, *, first: int | None) -> pa.Table:
        """All the rows, or the first ones where these will do; as few as the SELECT around them may see at once."""
        tables, count = [rows.schema.empty_table()], 0
        async for table in rows.tables:
            tables.append(table)
            count += table.num_rows
            if first is not None and count >= first:
                break
            if count > self._pages.max_rows:
                raise not_understood(
                    f"The call has more than {self._pages.max_rows} rows, too many for the SELECT around it",
                    hint="Filter, sort and limit in the call itself.",
                )
        return pa.concat_tables(tables)


def _note(understood: _Understood) -> None:
    """Name the request as the same one over REST is named; what a plain question says needs no statement beside it."""
    seen = observed()
    match understood.asked:
        case Question():
            seen.action = "run_query"
        case Compilation():
            seen.action = "compile_query"
        case ValuesOf():
            seen.action = "list_dimension_values"
            return
        case Listing():
            return
    if understood.around is None:
        seen.parameters = {}


def _of_values(asked: ValuesOf) -> MetricQuery:
    """The question whose first column has the values, and a null where there is one."""
    found = Comparison(field=asked.dimension, operator=Operator.CONTAINS, values=(asked.search or "",))
    return MetricQuery(metrics=asked.metrics, group_by=(asked.dimension,), where=found if asked.search else None)


def _present(table: pa.Table) -> pa.Table:
    return table.select([0]).filter(table.column(0).is_valid())


def whole(table: pa.Table) -> Rows:
    """The rows of a table that is there already."""
    return Rows(schema=table.schema, tables=_each((table,)))


async def _each(tables: Iterable[pa.Table]) -> AsyncIterator[pa.Table]:
    for table in tables:
        yield table
