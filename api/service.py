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
import pyarrow.compute as pc
import structlog

from api.cache import CachedResult, Origin, ResultCache
from api.catalog import Catalog, Metric, ValueType
from api.compiler import Column, CompiledQuery
from api.filters import AllOf, Comparison, Operator, typed
from api.floor import FlooredQuery, Withheld, below_floor
from api.opened import OpenPublication
from api.periods import DateRange
from api.policy import Grant, PolicySource, Principal, hashed
from api.policy_check import PolicyReviewer
from api.publication import LineageGraph, PublicationFolder, PublicationInfo, ServedPublication
from api.query import MetricQuery, PageLimits
from api.warehouse import value_type

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
    answers, and for these alone. `cost` is there where the role has a budget, `withheld` where it has a floor.
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
    cost: int | None
    withheld: Withheld | None
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
        self._reviewer = PolicyReviewer()

    @property
    def is_ready(self) -> bool:
        """Whether a publication can answer."""
        return self._served.is_ready

    def review_policy(self) -> None:
        """Log what the policy names and the current publication does not have; once for each pair of them."""
        if self.is_ready:
            with self._served.lease() as publication:
                self._reviewer.review(self._policies.current(), publication.catalog, version=publication.version)

    def catalog(self, principal: Principal) -> Catalog:
        """What the caller may ask; raises `Forbidden` where the policy does not know its role, or cannot apply it."""
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
        """The SQL, the parameters and the cost of answering the query, also over the role's budget; nothing runs.

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
            return await publication.with_cost(await publication.compile(query, grant, self._limits))

    async def query(self, principal: Principal, query: MetricQuery, *, use: CacheUse = CacheUse.READ) -> Answer:
        """The answer, from one publication as a whole.

        Raises
        ------
        UnknownName, InvalidQuery
            As `api.query.check` says, or the query costs more than the role may spend, or is too large for the engine.
        Forbidden
            The policy does not know the role or cannot apply it, the question filters by what it sees hashed, or its
            answer tells of fewer customers than the role's floor asks for.
        QueryTimeout, Unavailable
            As `api.warehouse.Warehouse.query` says, or nothing is published.
        """
        answer = await self._answer(principal, query, use)
        if answer.withheld is not None and answer.withheld.is_everything:
            raise below_floor(answer.withheld.floor)
        _record(principal, query, answer)
        return answer

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
        role = self._grant(principal).role
        if role.min_customers is not None and not (search and role.hashes(dimension)):
            return await self._common_values(principal, dimension, metrics=metrics, search=search, limit=limit)
        if role.hashes(dimension) and not search:
            query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), limit=limit)
            return _first_column(await self.query(principal, query))
        present = Comparison(field=dimension, operator=Operator.IS_NOT_NULL)
        found = Comparison(field=dimension, operator=Operator.CONTAINS, values=(search,)) if search else None
        where = AllOf((present, found)) if found else present
        query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), where=where, limit=limit)
        return _first_column(await self.query(principal, query))

    async def _common_values(
        self, principal: Principal, dimension: str, *, metrics: Sequence[str], search: str | None, limit: int
    ) -> Answer:
        """The values that enough customers share; searched here, as a filter would decide over customers."""
        pages = self._limits.at_most(self._grant(principal).role.max_rows)
        query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), limit=pages.max_rows)
        answer = _first_column(await self._answer(principal, query, CacheUse.READ))
        values = answer.table.filter(answer.table.column(0).is_valid())
        if search:
            typed(
                Comparison(field=dimension, operator=Operator.CONTAINS, values=(search,)),
                field=dimension,
                type_=answer.columns[0].type or ValueType.STRING,
            )
            values = values.filter(pc.match_substring(values.column(0), search))
        is_truncated = answer.is_truncated or values.num_rows > limit
        return replace(answer, table=values.slice(0, limit), limit=limit, is_truncated=is_truncated)

    async def lineage(self, principal: Principal, metric: str) -> MetricLineage:
        """Where the metric comes from, down to the sources; raises `Forbidden` unless the role sees SQL."""
        grant = self._grant(principal)
        grant.require_sql()
        with self._served.lease() as publication:
            publication.visible_to(grant).metric(metric)
            graph = await asyncio.to_thread(self._folder.lineage, publication.info.version)
            return _lineage(publication.catalog.metric(metric), publication.catalog, graph)

    def _grant(self, principal: Principal) -> Grant:
        self.review_policy()
        return self._policies.current().grant(principal)

    async def _answer(self, principal: Principal, query: MetricQuery, use: CacheUse) -> Answer:
        """The answer, of which a floor may have left nothing."""
        started = time.perf_counter()
        grant = self._grant(principal)
        with self._served.lease() as publication:
            compiled = await publication.compile(query, grant, self._limits)
            floored = await publication.floored(query, grant, self._limits)
            if grant.role.max_cost is not None:
                compiled = await publication.with_cost(compiled, floored)
                grant.refuse_cost(compiled.cost or 0)
            compiled_at = time.perf_counter()
            result = await self._result(publication.version, compiled, floored, use)
            ran_at = time.perf_counter()
        question = compiled.question
        rows = floored.page(result.table, question) if floored else result.table
        columns, table = _conform(compiled.columns, rows.slice(0, question.limit))
        masked = {item.column for item in question.group_by if grant.role.hashes(item.dimension.name)}
        columns, table = _with_hashes(columns, table, masked=masked, secret=self._hash_secret)
        return Answer(
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
            tag=_tag(publication.version, compiled, floored, masked),
            cost=compiled.cost,
            withheld=floored.withheld(result.table) if floored else None,
            timings=Timings(
                compile_ms=_ms(started, compiled_at),
                run_ms=_ms(compiled_at, ran_at),
                total_ms=_ms(started, time.perf_counter()),
            ),
        )

    async def _result(
        self, version: str, compiled: CompiledQuery, floored: FlooredQuery | None, use: CacheUse
    ) -> CachedResult:
        key = _key(version, floored.answer, floored.floor) if floored else _key(version, compiled)

        async def run() -> pa.Table:
            # A run may outlive the caller that began it, so it holds a lease of its own.
            with self._served.lease(version) as publication:
                ask = publication.warehouse.query
                return await (floored.run(ask) if floored else ask(compiled.sql, compiled.parameters))

        match use:
            case CacheUse.READ:
                return await self._cache.get_or_run(key, run)
            case CacheUse.RENEW:
                return await self._cache.refresh(key, run)


def _key(version: str, compiled: CompiledQuery, *floor: int) -> str:
    """A name for the result: all that it depends on, the caller's row filter among the parameters."""
    return _digest(version, compiled.sql, sorted(compiled.parameters.items()), *floor)


def _tag(version: str, compiled: CompiledQuery, floored: FlooredQuery | None, masked: Collection[str]) -> str:
    """A name for the answer: its result, its page, and what of it is withheld or hashed."""
    key = _key(version, compiled, floored.floor) if floored else _key(version, compiled)
    return _digest(key, sorted(masked)) if masked else key


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
