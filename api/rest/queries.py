"""Asking: run a query, see its SQL, run a saved one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from fastapi.responses import Response

from api.rest import formats, problems
from api.rest.access import Caller, Layer
from api.rest.requests import QueryBody
from api.rest.resources import AnswerResource, CompiledResource
from api.service import Answer, CacheUse

router = APIRouter(prefix="/v1", tags=["queries"], responses=problems.describe(401, 503))

Accept = Annotated[str | None, Header(description=f"One of {', '.join(formats.OFFERED)}.")]
CacheControl = Annotated[str | None, Header(description="`no-cache` runs the query anew and keeps the new result.")]
IfNoneMatch = Annotated[str | None, Header(description="An ETag; the answer is 304 while it is the same.")]

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": AnswerResource,
        "description": "The rows, in the format that Accept likes best.",
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in formats.BINARY}
        | {media_type: {"schema": {"type": "string"}} for media_type in formats.TEXTS},
    },
    304: {"description": "The answer is the one that If-None-Match names."},
    **problems.describe(403, 404, 406, 422, 504),
}


@router.post("/query", response_class=Response, responses=_ANSWERS | problems.describe(400, 413, 415))
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
    return _rendered(answer, media_type, if_none_match)


@router.post(
    "/query/compile", response_model=CompiledResource, responses=problems.describe(400, 403, 404, 413, 415, 422)
)
async def compile_query(layer: Layer, caller: Caller, body: QueryBody) -> Response:
    """The SQL and parameters that would answer the question; nothing runs."""
    compiled = await layer.compile(caller, body.parsed())
    document = {
        "sql": compiled.sql,
        "parameters": dict(compiled.parameters),
        "columns": [formats.column(column) for column in compiled.columns],
        "plan": "hit" if compiled.is_from_cache else "miss",
    }
    return Response(formats.encode(document), media_type=formats.JSON)


@router.get("/saved-queries/{name}/results", response_class=Response, responses=_ANSWERS)
async def run_saved_query(
    layer: Layer,
    caller: Caller,
    name: Annotated[str, Path(min_length=1, max_length=300)],
    accept: Accept = None,
    cache_control: CacheControl = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Answer a saved query."""
    media_type = formats.negotiate(accept)
    answer = await layer.saved_query(caller, name, use=_use(cache_control))
    return _rendered(answer, media_type, if_none_match)


def _use(cache_control: str | None) -> CacheUse:
    wishes = {wish.strip().lower() for wish in (cache_control or "").split(",")}
    return CacheUse.RENEW if wishes & {"no-cache", "no-store"} else CacheUse.READ


def _rendered(answer: Answer, media_type: str, if_none_match: str | None) -> Response:
    timings = answer.timings
    # Weak (RFC 9110, 8.8.1): the rows are the same, but each answer has an id and timings of its own.
    tag = f'W/"{answer.tag}.{formats.OFFERED.index(media_type)}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",  # may be kept by its caller, and asked about before each use
        "Server-Timing": f"compile;dur={timings.compile_ms}, run;dur={timings.run_ms}, total;dur={timings.total_ms}",
        "Vary": "Accept",
    }
    if tag in {known.strip() for known in (if_none_match or "").split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(formats.render(answer, media_type), media_type=media_type, headers=headers)
