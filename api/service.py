"""`SemanticLayer`: the one door beneath every transport.

Whoever asks, over whatever transport, asks here; so what is allowed, limited and recorded is decided once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import Enum

import pyarrow as pa
import structlog

from api.cache import CachedResult, Origin, Reason, ResultCache
from api.catalog import Catalog, Metric, ValueType
from api.compiler import Column, CompiledQuery
from api.cursor import next_cursor
from api.filters import AllOf, Comparison, Operator
from api.opened import OpenPublication
from api.periods import DateRange
from api.policy import Grant, PolicySource, Principal, hashed
from api.publication import LineageGraph, PublicationFolder, PublicationInfo, ServedPublication
from api.query import MetricQuery, PageLimits
from api.warehouse import value_type

_log = structlog.get_logger(__name__)

_UTC = "UTC"


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
    answers, and for these alone. `next_cursor` begins the page of these more rows.
    """

    query_id: str
    table: pa.Table
    columns: tuple[Column, ...]
    publication: str
    as_of: date
    time_zone: str
    time_range: DateRange | None
    compared_with: DateRange | None
    limit: int
    offset: int
    is_truncated: bool
    next_cursor: str | None
    is_plan_cached: bool
    result_origin: Origin
    result_reason: Reason
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
        hash_secret: bytes,
    ) -> None:
        self._folder = folder
        self._served = served
        self._limits = limits
        self._policies = policies
        self._cache = cache
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
        UnreadableRequest, InvalidQuery
            As `api.cursor.resumed` says.
        Forbidden
            The policy does not know the role, or the question filters by what it sees hashed.
        QueryTimeout, Unavailable
            As `api.warehouse.Warehouse.query` says, or nothing is published.
        """
        started = time.perf_counter()
        grant = self._grant(principal)
        with self._served.lease() as publication:
            compiled = await publication.compile(query, grant, self._limits)
            compiled_at = time.perf_counter()
            tag = _tag(publication.version, compiled)
            result = await self._result(tag, publication.version, compiled, use)
            ran_at = time.perf_counter()
        question, rows = compiled.question, result.table
        is_truncated = rows.num_rows > question.limit
        masked = {item.column for item in question.group_by if grant.role.hashes(item.dimension.name)}
        columns, table = self._shown(compiled, rows, masked)
        differing = (*sorted(masked), question.time_zone) if masked or question.time_zone != _UTC else ()
        answer = Answer(
            query_id=uuid.uuid4().hex,
            table=table,
            columns=columns,
            publication=publication.version,
            as_of=publication.info.as_of,
            time_zone=question.time_zone,
            time_range=question.time_range,
            compared_with=question.earlier.days if question.earlier else None,
            limit=question.limit,
            offset=question.offset,
            is_truncated=is_truncated,
            next_cursor=next_cursor(question, version=publication.version) if is_truncated else None,
            is_plan_cached=compiled.is_from_cache,
            result_origin=result.origin,
            result_reason=result.reason,
            tag=_digest(tag, differing) if differing else tag,
            timings=Timings(
                compile_ms=_ms(started, compiled_at),
                run_ms=_ms(compiled_at, ran_at),
                total_ms=_ms(started, time.perf_counter()),
            ),
        )
        _record(principal, query, answer)
        return answer

    async def saved_query(
        self, principal: Principal, name: str, *, cursor: str | None = None, use: CacheUse = CacheUse.READ
    ) -> Answer:
        """The answer of a saved query; `UnknownName` if there is none of that name."""
        saved = self.catalog(principal).saved_query(name)
        query = MetricQuery(metrics=saved.metrics, group_by=saved.group_by, cursor=cursor)
        return await self.query(principal, query, use=use)

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

    def _shown(
        self, compiled: CompiledQuery, rows: pa.Table, masked: Collection[str]
    ) -> tuple[tuple[Column, ...], pa.Table]:
        """The page as its caller sees it: typed, hashed where it must be, its times in the zone asked for."""
        columns, table = _conform(compiled.columns, rows.slice(0, compiled.question.limit))
        columns, table = _with_hashes(columns, table, masked=masked, secret=self._hash_secret)
        return columns, _in_zone(table, compiled.question.time_zone)

    async def _result(self, key: str, version: str, compiled: CompiledQuery, use: CacheUse) -> CachedResult:
        async def run() -> pa.Table:
            # A run may outlive the caller that began it, so it holds a lease of its own.
            with self._served.lease(version) as publication:
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


def _in_zone(table: pa.Table, zone: str) -> pa.Table:
    """The table with its times shown in the zone; naive, as they come, in UTC."""
    if zone == _UTC:
        return table
    for position, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            # Two steps: the first says that they are in UTC, the second only shows them elsewhere.
            shown = (
                table.column(position)
                .cast(pa.timestamp(field.type.unit, _UTC))
                .cast(pa.timestamp(field.type.unit, zone))
            )
            table = table.set_column(position, field.name, shown)
    return table


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


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
