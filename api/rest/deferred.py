"""Long queries: submit one, follow it, read its rows page by page, end it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from api.cursor import decoded, encoded
from api.deferred_query import DeferredQuery, State
from api.rest import formats, problems
from api.rest.access import Caller, Deferred
from api.rest.contract import headers, leads_to, links
from api.rest.paging import Cursor, Limit
from api.rest.queries import Accept, IfNoneMatch, rendered, rows_answered
from api.rest.requests import QueryBody
from api.rest.resources import Listing, ListMeta, PageResource, Resource, TimingsResource

router = APIRouter(prefix="/v1/queries", tags=["long queries"])

_POLL_AGAIN = {"Retry-After": "1"}

QueryId = Annotated[str, Path(min_length=1, max_length=100, description="`query_id` of the submitted query.")]


class DeferredQueryResource(Resource):
    """A submitted query, and how far it is."""

    query_id: str
    state: State = Field(description="`queued` and `running` go on; `succeeded`, `failed` and `cancelled` are final.")
    metrics: list[str]
    group_by: list[str]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="From then on the query and its rows are gone.")
    attempts: int = Field(description="How often it was begun; more than once if the service ended meanwhile.")
    publication: str | None = Field(description="The version of the data that it ran on.")
    row_count: int | None
    truncated: bool | None = Field(description="Whether it found more rows than it may keep.")
    timings: TimingsResource | None
    error: problems.Problem | None = Field(description="Why it failed; its request_id is the query_id in the log.")

    @classmethod
    def of(cls, query: DeferredQuery) -> DeferredQueryResource:
        """The query as answered."""
        question, answer, failure = query.question, query.answer, query.failure
        path = f"/v1/queries/{query.query_id}"
        return cls(
            query_id=query.query_id,
            state=query.state,
            metrics=list(question.metrics) if question else [],
            group_by=list(question.group_by) if question else [],
            created_at=_aware(query.created_at),
            started_at=query.started_at and _aware(query.started_at),
            finished_at=query.finished_at and _aware(query.finished_at),
            expires_at=query.expires_at and _aware(query.expires_at),
            attempts=query.attempts,
            publication=answer and answer.publication,
            row_count=query.row_count,
            truncated=answer and answer.is_truncated,
            timings=answer and TimingsResource.model_validate(answer.timings, from_attributes=True),
            error=failure and problems.Problem(**problems.document(failure, instance=path, request_id=query.query_id)),
        )


_SUBMITTED = links(
    leads_to("get_query", "How far it is", query_id="$response.body#/query_id"),
    leads_to("get_query_results", "Its rows, once it has succeeded", query_id="$response.body#/query_id"),
    leads_to("end_query", "Ends it", query_id="$response.body#/query_id"),
    status=202,
)
_SUBMITTED[202]["headers"] = headers("Location", "Retry-After")


@router.post("", status_code=202, responses=_SUBMITTED | problems.describe(404))
async def submit_query(
    deferred: Deferred, caller: Caller, body: QueryBody, response: Response
) -> DeferredQueryResource:
    """Submit a question that may take long; Location says where to follow it."""
    submitted = await deferred.submit(caller, body.parsed())
    response.headers["Location"] = f"/v1/queries/{submitted.query_id}"
    response.headers.update(_POLL_AGAIN)
    return DeferredQueryResource.of(submitted)


@router.get(
    "",
    responses=links(
        leads_to("get_query", "How far the newest is", query_id="$response.body#/data/0/query_id"),
        leads_to("list_queries", "The next page", cursor="$response.body#/meta/next_cursor"),
    ),
)
async def list_queries(
    deferred: Deferred, caller: Caller, limit: Limit = 100, cursor: Cursor = None
) -> Listing[DeferredQueryResource]:
    """The caller's own queries, newest first."""
    before = decoded(cursor) if cursor else None
    # One more than shown tells whether there is another page.
    found, total = await deferred.recent(caller, before=before, limit=limit + 1)
    shown = found[:limit]
    next_cursor = encoded(shown[-1].query_id) if len(found) > limit else None
    data = [DeferredQueryResource.of(query) for query in shown]
    return Listing(data=data, meta=ListMeta(total=total, next_cursor=next_cursor))


@router.get("/{query_id}", responses=problems.describe(404) | {200: {"headers": headers("Retry-After")}})
async def get_query(deferred: Deferred, caller: Caller, query_id: QueryId, response: Response) -> DeferredQueryResource:
    """How far a query is."""
    found = await deferred.find(caller, query_id)
    if not found.state.is_final:
        response.headers.update(_POLL_AGAIN)
    return DeferredQueryResource.of(found)


@router.get(
    "/{query_id}/results",
    response_class=Response,
    responses=rows_answered(model=PageResource) | problems.describe(404, 409),
)
async def get_query_results(
    deferred: Deferred,
    caller: Caller,
    query_id: QueryId,
    page: Annotated[int, Query(ge=1, le=2**31, description="The first is 1.", examples=[1])] = 1,
    page_size: Annotated[int | None, Query(ge=1, le=2**31, description="Rows on each page.", examples=[100])] = None,
    accept: Accept = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """One page of a query's rows; 409 with Retry-After until it has finished."""
    media_type = formats.negotiate(accept)
    answer = await deferred.results(caller, query_id, page=page, rows=page_size)
    return rendered(answer, media_type, if_none_match)


@router.delete("/{query_id}", status_code=204, response_class=Response, responses=problems.describe(404))
async def end_query(deferred: Deferred, caller: Caller, query_id: QueryId) -> None:
    """Cancel a query, or let the rows of one that has succeeded go; again and again, if need be."""
    await deferred.end(caller, query_id)


def _aware(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC)
