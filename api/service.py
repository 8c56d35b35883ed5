"""`SemanticLayer`: the one door beneath every transport.

Whoever asks, over whatever transport, asks here; so what is allowed, limited and recorded is decided once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import Enum

import pyarrow as pa
import pyarrow.compute as pc

from api.admission import Admission
from api.allowance import Allowances
from api.answer import Answer, Given, Timings
from api.cache import CachedResult, Origin, ResultCache
from api.catalog import Catalog, Metric, ValueType
from api.compiler import CompiledQuery
from api.cursor import next_cursor
from api.definitions import Definitions
from api.errors import InvalidQuery, QueryTimeout
from api.export import BATCH_ROWS, Export, ExportedRows, ExportLimits
from api.filters import AllOf, Comparison, Operator, typed
from api.floor import FlooredQuery, below_floor
from api.observation import AnsweredWith, Stage, observed, timed, unique_id
from api.opened import OpenPublication
from api.outlook_model import PublishedOutlook
from api.policy import Grant, PolicySource, Principal, Role
from api.policy_check import PolicyReviewer
from api.publication import LineageGraph, PublicationFolder, PublicationInfo, ServedPublication
from api.query import MetricQuery, PageLimits
from api.saved import saved_question
from api.segment_model import SegmentModel
from api.shaping import Shaping
from api.warehouse import RowStream


class CacheUse(Enum):
    """Whether an answer that is kept will do, or a new one has to take its place."""

    READ = "read"
    RENEW = "renew"


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """A run with limits of its own, which therefore neither waits for another's run nor keeps its result for others.

    What is kept already will do, if it has the very rows.
    """

    limits: PageLimits
    timeout: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLineage:
    """Where a metric comes from: the metrics and semantic models it is made of, and the dbt nodes above them."""

    metric: Metric
    metrics: tuple[str, ...]
    models: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLimits:
    """How large a page may be, and an export."""

    pages: PageLimits
    exports: ExportLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModels:
    """What one publication has beside its data: the model of the segments, and the outlook; None for what it lacks."""

    publication: str
    as_of: date
    segments: SegmentModel | None
    outlook: PublishedOutlook | None


class SemanticLayer:
    """List, describe, compile and query the metrics of the current publication."""

    def __init__(
        self,
        *,
        folder: PublicationFolder,
        served: ServedPublication[OpenPublication],
        limits: ServiceLimits,
        policies: PolicySource,
        cache: ResultCache,
        allowances: Allowances,
        admission: Admission,
        hash_secret: bytes,
    ) -> None:
        self._folder = folder
        self._served = served
        self._limits = limits.pages
        self._exports = limits.exports
        self._policies = policies
        self._cache = cache
        self._allowances = allowances
        self._admission = admission
        self._hash_secret = hash_secret
        self._reviewer = PolicyReviewer()

    @property
    def is_ready(self) -> bool:
        """Whether a publication can answer."""
        return self._served.is_ready

    def review_policy(self) -> None:
        """Log what the policy names and the current publication does not have; once for each pair of them."""
        policy = self._policies.current()
        if self.is_ready and not self._reviewer.has_reviewed(policy, version=self._served.version):
            with self._served.lease() as publication:
                self._reviewer.review(policy, publication.catalog, version=publication.version)

    def catalog(self, principal: Principal) -> Catalog:
        """What the caller may ask; raises `Forbidden` where the policy does not know its role, or cannot apply it."""
        with self._served.lease() as publication:
            return publication.visible_to(self._grant(principal))

    def definitions(self, principal: Principal) -> Definitions:
        """How what the caller may ask is written down in dbt; `Forbidden` as `catalog`."""
        with self._served.lease() as publication:
            return publication.defined_for(self._grant(principal))

    def publication(self) -> PublicationInfo:
        """The current publication."""
        with self._served.lease() as publication:
            return publication.info

    def models(self) -> PublishedModels:
        """The models of the current publication, whoever asks: `api.segments` and `api.outlook` say who may."""
        with self._served.lease() as publication:
            info = publication.info
            return PublishedModels(
                publication=info.version, as_of=info.as_of, segments=publication.segments, outlook=publication.outlook
            )

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
            The role does not see SQL, filters by what it sees hashed, or has a floor.
        """
        observed().query = query
        grant = self._grant(principal)
        grant.require_sql()
        grant.refuse_below_floor("SQL and costs", hint="Ask for the answer itself: POST /v1/query.")
        with self._served.lease() as publication:
            with timed(Stage.COMPILE):
                compiled = await publication.with_cost(await publication.compile(query, grant, self._limits))
            observed().answer = _answered_with(compiled, publication.version)
            return compiled

    async def check(self, principal: Principal, query: MetricQuery, *, limits: PageLimits) -> None:
        """Return if `query` would answer it `Apart` now, within these limits; else raise what it would."""
        grant = self._grant(principal)
        _refuse_apart(grant)
        with self._served.lease() as publication:
            await publication.compile(query, grant, limits)

    async def sql(self, principal: Principal, query: MetricQuery, *, limits: PageLimits | None = None) -> str | None:
        """The SQL that answers the query, within limits of its own if there are any; None where the caller sees none.

        Raises
        ------
        UnknownName, InvalidQuery, Forbidden
            As `query`.
        """
        grant = self._grant(principal)
        if not grant.role.see_sql or grant.role.min_customers is not None:
            return None
        with self._served.lease() as publication:
            return (await publication.compile(query, grant, limits or self._limits)).sql

    def role(self, principal: Principal) -> Role:
        """What the caller's role may see; `Forbidden` for one that is not known."""
        return self._grant(principal).role

    def grant_digest(self, principal: Principal) -> str:
        """Names what the caller is allowed now, as `Answer.grant` does; `Forbidden` for a role that is not known."""
        return self._grant(principal).digest

    async def query(self, principal: Principal, query: MetricQuery, *, use: CacheUse | Apart = CacheUse.READ) -> Answer:
        """The answer, from one publication as a whole.

        Raises
        ------
        UnknownName, InvalidQuery
            As `api.query.check` says, or the query costs more than the role may spend, or is too large for the engine.
        UnreadableRequest, InvalidQuery
            As `api.cursor.resumed` says.
        Forbidden
            The policy does not know the role or cannot apply it, the question filters by what it sees hashed, or the
            role has a floor, and too few customers are concerned or the way of asking does not count them.
        QueryTimeout, Unavailable
            As `api.warehouse.Warehouse.query` says, or nothing is published.
        TooManyRequests, Unavailable
            The caller has had its rows of the day; or as `api.admission.Admission.place` says, if the query has to run.
        """
        grant = self._grant(principal)
        if isinstance(use, Apart):
            _refuse_apart(grant)
        answer, compiled = await self._answer(principal, grant, query, use)
        if answer.withheld is not None and answer.withheld.is_everything:
            raise below_floor(answer.withheld.floor)
        return await self._counted(principal, grant, answer, compiled)

    async def repeat(self, principal: Principal, given: Given) -> str | None:
        """The id under which the same question is answered with the same rows; None if it may have others now.

        Raises
        ------
        Forbidden
            The policy does not know the role or cannot apply it.
        TooManyRequests
            The caller has had its rows of the day.
        """
        grant, before = self._grant(principal), given.answer
        if before.grant != grant.digest or before.publication != self._served.version:
            return None
        await self._allowances.require_rows(principal, grant.role)
        self._cache.count_repeat()
        await self._allowances.count_rows(principal, grant.role, before.table.num_rows)
        query_id = unique_id()
        seen = observed()
        seen.query, seen.answer = given.query, given.told_again(query_id)
        return query_id

    async def schema(self, principal: Principal, query: MetricQuery) -> pa.Schema:
        """The columns and types that `query` or `export` would answer with; the engine plans, and reads no rows.

        Raises
        ------
        UnknownName, InvalidQuery, UnreadableRequest, Forbidden, Unavailable
            As `query`, which would therefore be refused.
        """
        observed().query = query
        grant = self._grant(principal)
        pages = replace(self._limits, max_rows=max(self._limits.max_rows, self._exports.rows))
        with self._served.lease() as publication:
            compiled, _ = await _affordable(publication, query, grant, pages)
            observed().answer = _answered_with(compiled, publication.version)
            kept = await self._planned(principal, publication.version, compiled)
        schema: pa.Schema = Shaping.of(compiled, grant, secret=self._hash_secret).table(kept.table).schema
        return schema

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
        observed().query = query
        if query.offset or query.cursor:
            raise InvalidQuery(
                "An export begins with the first row", hint="Leave offset and cursor out.", code="invalid_limit"
            )
        grant = self._grant(principal)
        grant.refuse_below_floor("Exports", hint="Ask for pages: POST /v1/query with limit and offset.")
        await self._allowances.require_rows(principal, grant.role)
        pages = PageLimits(default_rows=self._exports.rows, max_rows=self._exports.rows)
        with self._served.lease() as publication:
            compiled, _ = await _affordable(publication, query, grant, pages)
            async with (
                self._exports.places.place(principal.principal_id),
                self._admission.place(principal.principal_id),
                _within(self._exports.timeout),
                publication.warehouse.stream(compiled.sql, compiled.parameters, batch_rows=BATCH_ROWS) as stream,
            ):
                export = self._opened_export(publication, compiled, grant, stream, is_cut_short=query.limit is not None)
                told = _answered_with(compiled, publication.version)
                observed().answer = replace(told, query_id=export.query_id)
                try:
                    yield export
                finally:
                    observed().answer = replace(told, query_id=export.query_id, rows=export.rows.count)
                    await self._allowances.count_rows(principal, grant.role, export.rows.count)

    async def saved_query(
        self, principal: Principal, name: str, *, cursor: str | None = None, use: CacheUse = CacheUse.READ
    ) -> Answer:
        """The answer of a saved query; `UnknownName` if there is none of that name."""
        saved = self.catalog(principal).saved_query(name)
        return await self.query(principal, replace(saved_question(saved), cursor=cursor), use=use)

    async def dimension_values(
        self, principal: Principal, dimension: str, *, metrics: Sequence[str], search: str | None, limit: int | None
    ) -> Answer:
        """The distinct values of a dimension, nulls left out; those that have rows of the metrics, if any are named.

        `search` keeps the values that contain the text; it suits text dimensions alone. Without a limit they are as
        many as the rows of a query without one.
        """
        grant = self._grant(principal)
        is_hashed = grant.role.hashes(dimension)
        if grant.role.min_customers is not None and not (search and is_hashed):  # the latter is refused as a filter
            return await self._common_values(principal, grant, dimension, metrics=metrics, search=search, limit=limit)
        if is_hashed and not search:
            query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), limit=limit)
            return _first_column(await self.query(principal, query))
        present = Comparison(field=dimension, operator=Operator.IS_NOT_NULL)
        found = Comparison(field=dimension, operator=Operator.CONTAINS, values=(search,)) if search else None
        where = AllOf((present, found)) if found else present
        query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), where=where, limit=limit)
        return _first_column(await self.query(principal, query))

    async def lineage(self, principal: Principal, metric: str) -> MetricLineage:
        """Where the metric comes from, down to the sources; metrics that are hidden from the role are left out.

        Raises
        ------
        UnknownName
            There is no such metric.
        Forbidden
            The role does not see SQL.
        """
        grant = self._grant(principal)
        grant.require_sql()
        with self._served.lease() as publication:
            visible = publication.visible_to(grant)
            found = visible.metric(metric)
            graph = await asyncio.to_thread(self._folder.lineage, publication.info.version)
            return _lineage(found, publication.catalog, graph, visible=visible)

    def _grant(self, principal: Principal) -> Grant:
        self.review_policy()
        return self._policies.current().grant(principal)

    async def _answer(
        self, principal: Principal, grant: Grant, query: MetricQuery, use: CacheUse | Apart
    ) -> tuple[Answer, CompiledQuery]:
        """The answer, of which a floor may have left nothing, and the question that it answers."""
        started = time.perf_counter()
        observed().query = query
        await self._allowances.require_rows(principal, grant.role)
        with self._served.lease() as publication:
            compiled, floored = await _affordable(publication, query, grant, self._pages(use))
            compiled_at = time.perf_counter()
            tag = _tag(publication.version, compiled, floored)
            with timed(Stage.CACHE):
                result = await self._result(principal, publication.version, compiled, floored, use, tag=tag)
            ran_at = time.perf_counter()
        question = compiled.question
        rows = floored.page(result.table, question) if floored else result.table
        has_more = rows.num_rows > question.limit
        can_go_on = has_more and grant.role.min_customers is None  # else a cursor would be refused
        shaping = Shaping.of(compiled, grant, secret=self._hash_secret)
        return Answer(
            query_id=unique_id(),
            table=await _shaped(shaping, rows.slice(0, question.limit)),
            columns=shaping.columns_of(rows.schema),
            publication=publication.version,
            as_of=publication.info.as_of,
            time_zone=question.time_zone,
            time_range=question.time_range,
            compared_with=question.earlier.days if question.earlier else None,
            limit=question.limit,
            offset=question.offset,
            is_truncated=has_more,
            next_cursor=next_cursor(question, version=publication.version) if can_go_on else None,
            is_plan_cached=compiled.is_from_cache,
            result_origin=result.origin,
            result_reason=result.reason,
            tag=_digest(tag, shaping.difference) if shaping.difference else tag,
            cost=compiled.cost,
            withheld=floored.withheld(result.table) if floored else None,
            grant=grant.digest,
            timings=_timings(started, compiled_at, ran_at),
        ), compiled

    def _pages(self, use: CacheUse | Apart) -> PageLimits:
        return use.limits if isinstance(use, Apart) else self._limits

    async def _counted(self, principal: Principal, grant: Grant, answer: Answer, compiled: CompiledQuery) -> Answer:
        """The answer, its rows counted for the caller and noted for the audit."""
        await self._allowances.count_rows(principal, grant.role, answer.table.num_rows)
        observed().answer = _answered_with(compiled, answer.publication, answer)
        return answer

    async def _common_values(
        self,
        principal: Principal,
        grant: Grant,
        dimension: str,
        *,
        metrics: Sequence[str],
        search: str | None,
        limit: int | None,
    ) -> Answer:
        """The values that enough customers share; searched here, as a filter would decide over customers."""
        pages = self._limits.at_most(grant.role.max_rows)
        query = MetricQuery(metrics=tuple(metrics), group_by=(dimension,), limit=pages.max_rows)
        whole, compiled = await self._answer(principal, grant, query, CacheUse.READ)
        answer = _first_column(whole)
        values = answer.table.filter(answer.table.column(0).is_valid())
        if search:
            contains = Comparison(field=dimension, operator=Operator.CONTAINS, values=(search,))
            typed(contains, field=dimension, type_=answer.columns[0].type or ValueType.STRING)
            values = values.filter(pc.match_substring(values.column(0), search))
        most = pages.max_rows if limit is None else limit
        is_truncated = answer.is_truncated or values.num_rows > most
        shown = replace(answer, table=values.slice(0, most), limit=most, is_truncated=is_truncated)
        return await self._counted(principal, grant, shown, compiled)

    async def _planned(self, principal: Principal, version: str, compiled: CompiledQuery) -> CachedResult:
        """No rows, in the types of the engine; whatever the values, so they are no part of the key."""
        nothing = f"SELECT * FROM ({compiled.sql}) AS answer LIMIT 0"  # noqa: S608 - compiled by us

        async def plan() -> pa.Table:
            with self._served.lease(version) as publication:  # it may outlive its caller
                async with self._admission.place(principal.principal_id):
                    return await publication.warehouse.query(nothing, compiled.parameters)

        return await self._cache.get_or_run(_digest(version, nothing), plan)

    def _opened_export(
        self,
        publication: OpenPublication,
        compiled: CompiledQuery,
        grant: Grant,
        stream: RowStream,
        *,
        is_cut_short: bool,
    ) -> Export:
        shaping = Shaping.of(compiled, grant, secret=self._hash_secret)
        rows = ExportedRows(stream, shape=shaping.table, most=compiled.question.limit, is_cut_short=is_cut_short)
        return Export(
            query_id=unique_id(),
            rows=rows,
            columns=shaping.columns_of(stream.schema),
            publication=publication.version,
            as_of=publication.info.as_of,
            time_range=compiled.question.time_range,
        )

    async def _result(
        self,
        principal: Principal,
        version: str,
        compiled: CompiledQuery,
        floored: FlooredQuery | None,
        use: CacheUse | Apart,
        *,
        tag: str,
    ) -> CachedResult:
        # Under a floor all pages are cut from one result.
        key = _tag(version, floored.answer, floored) if floored else tag

        async def run(within: timedelta | None = None) -> pa.Table:
            # A run may outlive the caller that began it, so it holds a lease of its own, while it waits, too.
            with self._served.lease(version) as publication, timed(Stage.WAIT) as waiting:
                async with self._admission.place(principal.principal_id):
                    waiting.end()
                    with timed(Stage.RUN):
                        if floored:
                            return await floored.run(publication.warehouse.query)
                        return await publication.warehouse.query(compiled.sql, compiled.parameters, within=within)

        match use:
            case CacheUse.READ:
                return await self._cache.get_or_run(key, run)
            case CacheUse.RENEW:
                return await self._cache.refresh(key, run)
            case Apart(timeout=timeout):
                return self._cache.kept(key) or CachedResult(table=await run(timeout), origin=Origin.BYPASS)


async def _shaped(shaping: Shaping, rows: pa.Table) -> pa.Table:
    return await asyncio.to_thread(shaping.table, rows) if shaping.is_slow(rows) else shaping.table(rows)


def _timings(started: float, compiled_at: float, ran_at: float) -> Timings:
    return Timings(
        compile_ms=_ms(started, compiled_at),
        run_ms=_ms(compiled_at, ran_at),
        total_ms=_ms(started, time.perf_counter()),
    )


async def _affordable(
    publication: OpenPublication, query: MetricQuery, grant: Grant, limits: PageLimits
) -> tuple[CompiledQuery, FlooredQuery | None]:
    """The compiled question, which costs no more than the role may spend; and it under the role's floor, if any."""
    with timed(Stage.COMPILE):
        compiled = await publication.compile(query, grant, limits)
        floored = await publication.floored(query, grant, limits)
        if grant.role.max_cost is not None:
            compiled = await publication.with_cost(compiled, floored)
            grant.refuse_cost(compiled.cost or 0)
        return compiled, floored


def _refuse_apart(grant: Grant) -> None:
    grant.refuse_below_floor("Queries that are answered later", hint="Ask for the answer at once: POST /v1/query.")


def _tag(version: str, compiled: CompiledQuery, floored: FlooredQuery | None) -> str:
    """A name for the result: all that it depends on, the caller's row filter among the parameters."""
    floor = (floored.floor,) if floored else ()
    return _digest(version, compiled.sql, sorted(compiled.parameters.items()), *floor)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _first_column(answer: Answer) -> Answer:
    return replace(answer, table=answer.table.select([0]), columns=answer.columns[:1])


def _lineage(metric: Metric, catalog: Catalog, graph: LineageGraph, *, visible: Catalog) -> MetricLineage:
    metrics = list(catalog.metric(metric.name).inputs)
    for name in metrics:  # grows while it is walked, until the simple metrics are reached
        metrics += [deeper for deeper in catalog.metric(name).inputs if deeper not in metrics]
    node = next(name for name in graph.parents if name.startswith("metric.") and name.endswith(f".{metric.name}"))
    hidden = catalog.metrics.keys() - visible.metrics.keys()
    edges = graph.upstream(node)
    return MetricLineage(
        metric=metric,
        metrics=tuple(name for name in metrics if name in visible.metrics),
        models=metric.models,
        edges=tuple(edge for edge in edges if not any(_metric_name(node) in hidden for node in edge)),
    )


def _metric_name(node: str) -> str | None:
    return node.rpartition(".")[2] if node.startswith("metric.") else None


def _answered_with(compiled: CompiledQuery, version: str, answer: Answer | None = None) -> AnsweredWith:
    return AnsweredWith(
        metrics=tuple(metric.name for metric in compiled.question.metrics),
        publication=version,
        sql_hash=hashlib.sha256(compiled.sql.encode()).hexdigest(),
        query_id=answer.query_id if answer else None,
        rows=answer.table.num_rows if answer else None,
        origin=answer.result_origin if answer else None,
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
