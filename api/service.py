"""`SemanticLayer`: the one door beneath every transport.

Whoever asks, over whatever transport, asks here; so what is allowed, limited and recorded is decided once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import Enum
from functools import partial

import pyarrow as pa
import structlog

from api.admission import Admission
from api.cache import CachedResult, Origin, ResultCache
from api.catalog import Catalog, Metric, ValueType
from api.compiler import Column, CompiledQuery
from api.errors import InvalidQuery, QueryTimeout
from api.export import BATCH_ROWS, Export, ExportedRows, ExportLimits
from api.filters import AllOf, Comparison, Operator
from api.opened import OpenPublication
from api.periods import DateRange
from api.policy import Grant, PolicySource, Principal, hashed
from api.publication import LineageGraph, PublicationFolder, PublicationInfo, ServedPublication
from api.query import MetricQuery, PageLimits
from api.warehouse import RowStream, value_type

_log = structlog.get_logger(__name__)


class CacheUse(Enum):
    """Whether an answer that is kept will do, or a new one has to take its place."""

    READ = "read"
    RENEW = "renew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Milliseconds spent: making SQL, running it, and both with all around."""

    compile_ms: float
    run_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows with their meaning and their origin.

    `table` has one Arrow column for each of `columns`, in that order: money decimal, a time at a grain of a day or
    more a date. `is_truncated` says that more rows follow after `offset + table.num_rows`. `tag` is the same for equal
    answers, and for these alone.
    """

    query_id: str
    table: pa.Table
    columns: tuple[Column, ...]
    publication: str
    as_of: date
    time_range: DateRange | None
    limit: int
    offset: int
    is_truncated: bool
    is_plan_cached: bool
    result_origin: Origin
    tag: str
    timings: Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLineage:
    """Where a metric comes from: the metrics and semantic models it is made of, and the dbt nodes above them."""

    metric: Metric
    metrics: tuple[str, ...]
    models: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]


class SemanticLayer:
    """List, describe, compile and query the metrics of the current publication."""

    def __init__(
        self,
        *,
        folder: PublicationFolder,
        served: ServedPublication[OpenPublication],
        limits: PageLimits,
        policies: PolicySource,
        cache: ResultCache,
        admission: Admission,
        exports: ExportLimits,
        hash_secret: bytes,
    ) -> None:
        self._folder = folder
        self._served = served
        self._limits = limits
        self._policies = policies
        self._cache = cache
        self._admission = admission
        self._exports = exports
        self._hash_secret = hash_secret

    @property
    def is_ready(self) -> bool:
        """Whether a publication can answer."""
        return self._served.is_ready

    def catalog(self, principal: Principal) -> Catalog:
        """What the caller may ask; raises `Forbidden` where the policy does not know its role."""
        with self._served.lease() as publication:
            return publication.visible_to(self._grant(principal))

    def publication(self) -> PublicationInfo:
        """The current publication."""
        with self._served.lease() as publication:
            return publication.info

    def publications(self) -> tuple[PublicationInfo, ...]:
        """Every publication that is kept, newest first. Reads the disk."""
        return self._folder.versions()

    async def compile(self, principal: Principal, query: MetricQuery) -> CompiledQuery:
        """The SQL and the parameters that would answer the query; nothing runs.

        Raises
        ------
        UnknownName, InvalidQuery
            As `api.query.check` says.
        Forbidden
            The role does not see SQL, or filters by what it sees hashed.
        """
        grant = self._grant(principal)
        grant.require_sql()
        with self._served.lease() as publication:
            return await publication.compile(query, grant, self._limits)

    async def query(self, principal: Principal, query: MetricQuery, *, use: CacheUse = CacheUse.READ) -> Answer:
        """The answer, from one publication as a whole.

        Raises
        ------
        UnknownName, InvalidQuery
            As `api.query.check` says, or the query is too large for the engine.
        Forbidden
            The policy does not know the role, or the question filters by what it sees hashed.
        QueryTimeout, Unavailable
            As `api.warehouse.Warehouse.query` says, or nothing is published.
        TooManyRequests, Unavailable
            As `api.admission.Admission.place` says, where the query has to run.
        """
        started = time.perf_counter()
        grant = self._grant(principal)
        with self._served.lease() as publication:
            compiled = await publication.compile(query, grant, self._limits)
            compiled_at = time.perf_counter()
            tag = _tag(publication.version, compiled)
            result = await self._result(principal, tag, publication.version, compiled, use)
            ran_at = time.perf_counter()
        question, rows = compiled.question, result.table
        masked = {item.column for item in question.group_by if grant.role.hashes(item.dimension.name)}
        columns, table = _shown(
            compiled.columns, rows.slice(0, question.limit), masked=masked, secret=self._hash_secret
        )
        answer = Answer(
            query_id=uuid.uuid4().hex,
            table=table,
            columns=columns,
            publication=publication.version,
            as_of=publication.info.as_of,
            time_range=question.time_range,
            limit=question.limit,
            offset=question.offset,
            is_truncated=rows.num_rows > question.limit,
            is_plan_cached=compiled.is_from_cache,
            result_origin=result.origin,
            tag=_digest(tag, sorted(masked)) if masked else tag,
            timings=Timings(
                compile_ms=_ms(started, compiled_at),
                run_ms=_ms(compiled_at, ran_at),
                total_ms=_ms(started, time.perf_counter()),
            ),
        )
        _record(principal, query, answer)
        return answer

    @asynccontextmanager
    async def export(self, principal: Principal, query: MetricQuery) -> AsyncIterator[Export]:
        """All the rows of the answer, computed while they are taken; holds a place for the length of the block.

        Nothing is kept, and nothing that is kept is used. When the block is left early, the statement stops.

        Raises
        ------
        UnknownName, InvalidQuery, Forbidden, Unavailable, TooManyRequests
            As `query`, or the query names an offset.
        QueryTimeout
            The block took longer than an export may.
        """
        if query.offset:
            raise InvalidQuery("An export begins with the first row", hint="Leave offset out.", code="invalid_limit")
        grant = self._grant(principal)
        pages = PageLimits(default_rows=self._exports.rows, max_rows=self._exports.rows)
        with self._served.lease() as publication:
            compiled = await publication.compile(query, grant, pages)
            async with (
                self._exports.places.place(principal.principal_id),
                self._admission.place(principal.principal_id),
                _within(self._exports.timeout),
                publication.warehouse.stream(compiled.sql, compiled.parameters, batch_rows=BATCH_ROWS) as stream,
            ):
                export = self._opened_export(publication, compiled, grant, stream, is_cut_short=query.limit is not None)
                try:
                    yield export
                finally:
                    _record_export(principal, query, export)

    async def saved_query(self, principal: Principal, name: str, *, use: CacheUse = CacheUse.READ) -> Answer:
        """The answer of a saved query; `UnknownName` if there is none of that name."""
        saved = self.catalog(principal).saved_query(name)
        return await self.query(principal, MetricQuery(metrics=saved.metrics, group_by=saved.group_by), use=use)

    async def dimension_values(
        self, principal: Principal, dimension: str, *, metrics: Sequence[str], search: str | None, limit: int
    ) -> Answer:
        """The distinct values of a dimension, nulls left out; those that have rows of the metrics, if any are named.

        `search` keeps the values that contain the text; it suits text dimensions alone.
        """
        if self._grant(principal).role.hashes(dimension) and not search:
            query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), limit=limit)
            return _first_column(await self.query(principal, query))
        present = Comparison(field=dimension, operator=Operator.IS_NOT_NULL)
        found = Comparison(field=dimension, operator=Operator.CONTAINS, values=(search,)) if search else None
        where = AllOf((present, found)) if found else present
        query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), where=where, limit=limit)
        return _first_column(await self.query(principal, query))

    async def lineage(self, principal: Principal, metric: str) -> MetricLineage:
        """Where the metric comes from, down to the sources; raises `Forbidden` unless the role sees SQL."""
        grant = self._grant(principal)
        grant.require_sql()
        with self._served.lease() as publication:
            publication.visible_to(grant).metric(metric)
            graph = await asyncio.to_thread(self._folder.lineage, publication.info.version)
            return _lineage(publication.catalog.metric(metric), publication.catalog, graph)

    def _grant(self, principal: Principal) -> Grant:
        return self._policies.current().grant(principal)

    def _opened_export(
        self,
        publication: OpenPublication,
        compiled: CompiledQuery,
        grant: Grant,
        stream: RowStream,
        *,
        is_cut_short: bool,
    ) -> Export:
        question = compiled.question
        masked = {item.column for item in question.group_by if grant.role.hashes(item.dimension.name)}
        shown = partial(_shown, compiled.columns, masked=masked, secret=self._hash_secret)
        return Export(
            query_id=uuid.uuid4().hex,
            rows=ExportedRows(
                stream, shape=lambda table: shown(table)[1], most=question.limit, is_cut_short=is_cut_short
            ),
            columns=shown(stream.schema.empty_table())[0],
            publication=publication.version,
            as_of=publication.info.as_of,
            time_range=question.time_range,
        )

    async def _result(
        self, principal: Principal, key: str, version: str, compiled: CompiledQuery, use: CacheUse
    ) -> CachedResult:
        async def run() -> pa.Table:
            # A run may outlive the caller that began it, so it holds a lease of its own, while it waits, too.
            with self._served.lease(version) as publication:
                async with self._admission.place(principal.principal_id):
                    return await publication.warehouse.query(compiled.sql, compiled.parameters)

        match use:
            case CacheUse.READ:
                return await self._cache.get_or_run(key, run)
            case CacheUse.RENEW:
                return await self._cache.refresh(key, run)


def _tag(version: str, compiled: CompiledQuery) -> str:
    """A name for the result: all that it depends on, the caller's row filter among the parameters."""
    return _digest(version, compiled.sql, sorted(compiled.parameters.items()))


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _first_column(answer: Answer) -> Answer:
    return replace(answer, table=answer.table.select([0]), columns=answer.columns[:1])


def _shown(
    columns: tuple[Column, ...], rows: pa.Table, *, masked: Collection[str], secret: bytes
) -> tuple[tuple[Column, ...], pa.Table]:
    """The columns and the rows as the caller may see them."""
    return _with_hashes(*_conform(columns, rows), masked=masked, secret=secret)


def _with_hashes(
    columns: tuple[Column, ...], table: pa.Table, *, masked: Collection[str], secret: bytes
) -> tuple[tuple[Column, ...], pa.Table]:
    """The columns that the role sees hashed, as texts that tell values apart and nothing else."""
    for position, column in enumerate(columns):
        if column.name in masked:
            texts = pa.array([hashed(value, secret) for value in table.column(position).to_pylist()], pa.string())
            table = table.set_column(position, column.name, texts)
            shown = replace(column, type=ValueType.STRING)
            columns = (*columns[:position], shown, *columns[position + 1 :])
    return columns, table


def _conform(columns: tuple[Column, ...], rows: pa.Table) -> tuple[tuple[Column, ...], pa.Table]:
    """The columns with every type known, and the rows in just these types."""
    typed = tuple(
        column if column.type else replace(column, type=value_type(field.type))
        for column, field in zip(columns, rows.schema, strict=True)
    )
    # Engines truncate a date to a timestamp; a month is a day to its reader.
    arrays = [
        array.cast(pa.date32()) if column.type is ValueType.DATE else array
        for column, array in zip(typed, rows.itercolumns(), strict=True)
    ]
    return typed, pa.table(arrays, names=[column.name for column in typed])


def _lineage(metric: Metric, catalog: Catalog, graph: LineageGraph) -> MetricLineage:
    metrics = list(metric.inputs)
    for name in metrics:  # grows while it is walked, until the simple metrics are reached
        metrics += [deeper for deeper in catalog.metric(name).inputs if deeper not in metrics]
    node = next(name for name in graph.parents if name.startswith("metric.") and name.endswith(f".{metric.name}"))
    return MetricLineage(metric=metric, metrics=tuple(metrics), models=metric.models, edges=graph.upstream(node))


def _record(principal: Principal, query: MetricQuery, answer: Answer) -> None:
    _log.info(
        "query_answered",
        query_id=answer.query_id,
        principal=principal.principal_id,
        metrics=query.metrics,
        group_by=query.group_by,
        rows=answer.table.num_rows,
        publication=answer.publication,
        total_ms=answer.timings.total_ms,
    )


def _record_export(principal: Principal, query: MetricQuery, export: Export) -> None:
    _log.info(
        "export_ended",
        query_id=export.query_id,
        principal=principal.principal_id,
        metrics=query.metrics,
        group_by=query.group_by,
        rows=export.rows.count,
        is_whole=export.rows.is_whole,
        publication=export.publication,
    )


@asynccontextmanager
async def _within(limit: timedelta) -> AsyncIterator[None]:
    """Raise `QueryTimeout` where the block takes longer."""
    deadline = asyncio.timeout(limit.total_seconds())
    try:
        async with deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise QueryTimeout(
            f"The export took longer than {limit.total_seconds():g} s and was stopped",
            hint="Ask for less at once, read faster, or raise INSIGHT_EXPORT_TIMEOUT_S.",
            code="export_timeout",
        ) from error


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
