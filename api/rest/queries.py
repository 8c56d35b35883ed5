"""Asking: run a query, see its SQL, run a saved one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Path
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from api.answer import Answer
from api.observation import Stage, timed
from api.rest import formats, problems
from api.rest.access import Caller, Layer
from api.rest.contract import Document, headers, leads_to, links
from api.rest.paging import Cursor
from api.rest.requests import QueryBody
from api.rest.resources import AnswerResource, CompiledResource
from api.service import CacheUse

router = APIRouter(prefix="/v1", tags=["queries"], responses=problems.describe(404))

# OpenAPI tells what Accept may say by the media types of the answer, and ignores the header among the parameters.
Accept = Annotated[str | None, Header(include_in_schema=False)]
CacheControl = Annotated[
    str | None,
    Header(description="`no-cache` runs the query anew and keeps the new result.", examples=["no-cache"]),
]
IfNoneMatch = Annotated[
    str | None,
    Header(description="An ETag; the answer is 304 while it is the same.", examples=['W/"6f0a31c2.0"']),
]

_MEASURED = headers("ETag", "Server-Timing")


def rows_content() -> Document:
    """The OpenAPI entries for rows in every format but JSON."""
    texts: Document = {media_type: {"schema": {"type": "string"}} for media_type in formats.TEXTS}
    binary: Document = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in formats.BINARY}
    return texts | binary


def rows_answered(*led: Document, model: type[AnswerResource] = AnswerResource) -> dict[int | str, Document]:
    """The OpenAPI entries of a route that answers rows, as `model` in JSON."""
    # A part of a stored result has its pages instead of a cursor.
    sent = _MEASURED | (headers("X-Next-Cursor") if model is AnswerResource else {})
    rows: Document = {"model": model, "content": rows_content(), "headers": sent, **links(*led)[200]}
    unchanged = {"description": "The answer is the one that If-None-Match names.", "headers": sent}
    return {200: rows, 304: unchanged, **problems.describe(406)}


@router.post(
    "/query",
    response_class=Response,
    responses=rows_answered(leads_to("compile_query", "Its SQL", body="$request.body")) | problems.describe(504),
)
async def run_query(
    layer: Layer,
    caller: Caller,
    body: QueryBody,
    accept: Accept = None,
    cache_control: CacheControl = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Answer a question for metrics."""
    media_type = formats.negotiate(accept)
    answer = await layer.query(caller, body.parsed(), use=_use(cache_control))
    return rendered(answer, media_type, if_none_match)


@router.post(
    "/query/compile",
    response_model=CompiledResource,
    responses=links(leads_to("run_query", "Its answer", body="$request.body")),
)
async def compile_query(layer: Layer, caller: Caller, body: QueryBody) -> Response:
    """The SQL and parameters that would answer the question; nothing runs. Needs a role that sees SQL."""
    compiled = await layer.compile(caller, body.parsed())
    return Response(formats.encode(CompiledResource.of(compiled)), media_type=formats.JSON)


@router.get(
    "/saved-queries/{name}/results", response_class=Response, responses=rows_answered() | problems.describe(504)
)
async def run_saved_query(
    layer: Layer,
    caller: Caller,
    name: Annotated[str, Path(min_length=1, max_length=300, examples=["revenue_by_month"])],
    cursor: Cursor = None,
    accept: Accept = None,
    cache_control: CacheControl = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Answer a saved query."""
    media_type = formats.negotiate(accept)
    answer = await layer.saved_query(caller, name, cursor=cursor, use=_use(cache_control))
    return rendered(answer, media_type, if_none_match)


def _use(cache_control: str | None) -> CacheUse:
    wishes = {wish.strip().lower() for wish in (cache_control or "").split(",")}
    return CacheUse.RENEW if wishes & {"no-cache", "no-store"} else CacheUse.READ


class AnswerResponse(Response):
    """An answer in a format; leaves itself with the request, so that a repeat of it can be answered."""

    def __init__(self, answer: Answer, encoded: formats.Encoded, headers: Mapping[str, str]) -> None:
        self.answer, self.encoded = answer, encoded
        super().__init__(encoded.document(answer), media_type=encoded.media_type, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        scope["state"]["answer"] = self
        await super().__call__(scope, receive, send)


def rendered(answer: Answer, media_type: str, if_none_match: str | None) -> Response:
    """The answer in the format, or 304 where the caller has it."""
    headers = _headers(answer, media_type)
    if headers["ETag"] in {known.strip() for known in (if_none_match or "").split(",")}:
        return Response(status_code=304, headers=headers)
    with timed(Stage.RENDER):
        return AnswerResponse(answer, formats.Encoded.of(answer, media_type), headers)


def server_timing(compile_ms: float, run_ms: float, total_ms: float) -> str:
    """The header `Server-Timing`, which a browser's tools show."""
    return f"compile;dur={compile_ms}, run;dur={run_ms}, total;dur={total_ms}"


def _headers(answer: Answer, media_type: str) -> dict[str, str]:
    timings = answer.timings
    # Weak (RFC 9110, 8.8.1): the rows are the same, but each answer has an id and timings of its own.
    tag = f'W/"{answer.tag}.{formats.OFFERED.index(media_type)}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",  # may be kept by its caller, and asked about before each use
        "Server-Timing": server_timing(timings.compile_ms, timings.run_ms, timings.total_ms),
        "Vary": "Accept",
    }
    if answer.next_cursor:
        headers["X-Next-Cursor"] = answer.next_cursor
    return headers
