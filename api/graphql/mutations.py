"""What can be asked: the fields of `Mutation`. A question that is answered later is told by its `queryId`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import strawberry

from api.errors import Failure, RequestError, TooManyRequests, UnknownName
from api.filters import Comparison, Filter, Operator, all_of
from api.graphql.asking import Asking, Info
from api.graphql.faults import note
from api.graphql.handles import Handle
from api.graphql.inputs import Asked, GroupByInput, MetricInput, OrderByInput, Question, WhereInput, names, question
from api.graphql.result_nodes import PAGE_ROWS, QueryResultNode, answered
from api.graphql.vocabulary import BigInteger, JsonValue, QueryType
from api.query import MetricQuery
from api.service import CacheUse


@strawberry.type(name="CreateQueryResult")
class CreatedNode:
    """A query to poll for."""

    query_id: str


@strawberry.type(name="CreateDimensionValuesQueryResult")
class CreatedValuesNode:
    """A query for values to poll for."""

    query_id: str


@strawberry.type(name="CompileSqlResult")
class CompiledNode:
    """The SQL of a query that did not run; values are named parameters, and never part of its text."""

    query_id: str
    sql: str
    parameters: JsonValue


@strawberry.type(name="CancelQueryResult")
class CancelledNode:
    """A query that has ended."""

    query_id: str


@strawberry.type(name="InvalidateCacheResult")
class InvalidatedNode:
    """What was let go."""

    description: str
    invalidation_count: int


@strawberry.type(name="Mutation")
class Mutations:
    """What can be asked; one field in a request."""

    @strawberry.mutation
    async def create_query(  # noqa: PLR0913 - dbt's own arguments
        self,
        info: Info,
        *,
        environment_id: BigInteger | None = None,
        saved_query: str | None = None,
        metrics: list[MetricInput] | None = None,
        group_by: list[GroupByInput] | None = None,
        limit: int | None = None,
        where: list[WhereInput] | None = None,
        order_by: list[OrderByInput] | None = None,
        read_cache: bool | None = True,
    ) -> CreatedNode:
        """Submit a question; poll `query` for its rows, or for why it was refused."""
        asked = Asked(
            saved_query=saved_query,
            metrics=metrics,
            group_by=group_by,
            limit=limit,
            where=where,
            order_by=order_by,
            read_cache=read_cache,
        )
        handle = Handle(saved_query=saved_query, reads_cache=read_cache is not False)
        asking = info.context
        asking.require(environment_id)
        return CreatedNode(query_id=str(await _submitted(asking, handle, lambda: _question(asking, asked))))

    @strawberry.mutation
    async def create_synchronous_query(  # noqa: PLR0913 - likewise
        self,
        info: Info,
        *,
        environment_id: BigInteger | None = None,
        saved_query: str | None = None,
        metrics: list[MetricInput] | None = None,
        group_by: list[GroupByInput] | None = None,
        limit: int | None = None,
        where: list[WhereInput] | None = None,
        order_by: list[OrderByInput] | None = None,
        read_cache: bool | None = True,
        page_num: int = 1,
    ) -> QueryResultNode:
        """Answer a question at once, as REST does; ask again with another `pageNum` for more than one page."""
        asked = Asked(
            saved_query=saved_query,
            metrics=metrics,
            group_by=group_by,
            limit=limit,
            where=where,
            order_by=order_by,
            read_cache=read_cache,
        )
        asking = info.context
        asking.require(environment_id)
        return await _answered(asking, asked, page_num)

    @strawberry.mutation
    async def compile_sql(  # noqa: PLR0913 - likewise
        self,
        info: Info,
        *,
        environment_id: BigInteger | None = None,
        saved_query: str | None = None,
        metrics: list[MetricInput] | None = None,
        group_by: list[GroupByInput] | None = None,
        limit: int | None = None,
        where: list[WhereInput] | None = None,
        order_by: list[OrderByInput] | None = None,
        read_cache: bool | None = True,
    ) -> CompiledNode:
        """The SQL that would answer a question; nothing runs. Needs a role that sees SQL."""
        asked = Asked(
            saved_query=saved_query,
            metrics=metrics,
            group_by=group_by,
            limit=limit,
            where=where,
            order_by=order_by,
            read_cache=read_cache,
        )
        asking = info.context
        asking.require(environment_id)
        return await _compiled(asking, _question(asking, asked).query)

    @strawberry.mutation
    async def create_dimension_values_query(
        self,
        info: Info,
        group_by: list[GroupByInput],
        environment_id: BigInteger | None = None,
        metrics: list[MetricInput] | None = None,
    ) -> CreatedValuesNode:
        """Submit a question for the values of dimensions; with `metrics`, those that have rows of them."""
        asking = info.context
        asking.require(environment_id)
        handle = Handle(kind=QueryType.DIMENSION_VALUES)
        created = await _submitted(asking, handle, lambda: _values(asking, metrics, group_by))
        return CreatedValuesNode(query_id=str(created))

    @strawberry.mutation
    async def compile_dimension_values_sql(
        self,
        info: Info,
        group_by: list[GroupByInput],
        environment_id: BigInteger | None = None,
        metrics: list[MetricInput] | None = None,
    ) -> CompiledNode:
        """The SQL that would find the values of dimensions; nothing runs."""
        asking = info.context
        asking.require(environment_id)
        return await _compiled(asking, _values(asking, metrics, group_by).query)

    @strawberry.mutation
    async def cancel_query(self, info: Info, query_id: str, environment_id: BigInteger | None = None) -> CancelledNode:
        """End a query of the caller's own; one that has ended stays as it is."""
        asking = info.context
        asking.require(environment_id)
        handle = Handle.parse(query_id)
        if handle.failure is None:
            await asking.deferred.cancel(asking.principal, handle.query_id)
        return CancelledNode(query_id=query_id)

    @strawberry.mutation
    def invalidate_cache(self, info: Info, environment_id: BigInteger | None = None) -> InvalidatedNode:
        """Say that there is nothing to invalidate."""
        info.context.require(environment_id)
        return InvalidatedNode(
            description="Results are kept by publication, so none is ever stale; readCache: false runs one anew.",
            invalidation_count=0,
        )


def _question(asking: Asking, asked: Asked) -> Question:
    return question(asked, asking.layer.catalog(asking.principal))


def _values(asking: Asking, metrics: list[MetricInput] | None, group_by: list[GroupByInput]) -> Question:
    """The question for the values of dimensions; nulls are no values, where the role may filter by them."""
    asked = _question(asking, Asked(metrics=metrics, group_by=group_by)).query
    grouped = tuple(asked.group_by)
    return Question(query=replace(asked, metrics=names(metrics), where=_present(asking, grouped)))


def _present(asking: Asking, group_by: tuple[str, ...]) -> Filter | None:
    role = asking.layer.role(asking.principal)
    seen = (name for name in group_by if not role.hashes(name))
    return all_of(*(Comparison(field=name, operator=Operator.IS_NOT_NULL) for name in seen))


async def _submitted(asking: Asking, handle: Handle, made: Callable[[], Question]) -> Handle:
    """The handle of the question, queued, or that of its refusal: dbt's clients learn of one when they poll.

    Raises
    ------
    TooManyRequests, Unavailable
        As `DeferredQueries.submit`: asking again may help.
    """
    try:
        asked = made()
        taken = await asking.deferred.submit(asking.principal, asked.query)
    except TooManyRequests:
        raise
    except RequestError as error:
        note(error)
        return Handle(failure=Failure.of(error))
    return replace(handle, query_id=taken.query_id, aliases=asked.aliases)


async def _answered(asking: Asking, asked: Asked, number: int) -> QueryResultNode:
    made = _question(asking, asked)
    use = CacheUse.RENEW if asked.read_cache is False else CacheUse.READ
    answer = await asking.layer.query(asking.principal, made.query, use=use)
    if not 1 <= number <= max(1, -(-answer.table.num_rows // PAGE_ROWS)):
        raise UnknownName(
            f"There is no page {number}", hint=f"A page has {PAGE_ROWS} rows; the first is 1.", code="unknown_page"
        )

    async def sql() -> str | None:
        return await asking.layer.sql(asking.principal, made.query)

    handle = Handle(
        query_id=answer.query_id,
        aliases=made.aliases,
        saved_query=asked.saved_query,
        reads_cache=use is CacheUse.READ,
    )
    return answered(answer, made.query, handle, number=number, sql_text=sql)


async def _compiled(asking: Asking, query: MetricQuery) -> CompiledNode:
    compiled = await asking.layer.compile(asking.principal, query)
    return CompiledNode(query_id=uuid.uuid4().hex, sql=compiled.sql, parameters=JsonValue(dict(compiled.parameters)))
