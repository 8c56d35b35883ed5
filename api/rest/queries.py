"""Asking: run a query, see its SQL, run a saved one."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from fastapi.responses import Response

from api.rest import formats, problems
from api.rest.access import Caller, Layer
from api.rest.requests import QueryBody
from api.rest.resources import AnswerResource, ColumnResource, CompiledResource
from api.service import Answer

router = APIRouter(prefix="/v1", tags=["queries"], responses=problems.describe(401, 503))

Accept = Annotated[str | None, Header(description=f"One of {', '.join(formats.OFFERED)}.")]

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": AnswerResource,
        "description": "The rows, in the format that Accept likes best.",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in formats.OFFERED[2:]
        }
        | {formats.CSV: {"schema": {"type": "string"}}},
    },
    **problems.describe(404, 406, 422, 504),
}


@router.post("/query", response_class=Response, responses=_ANSWERS | problems.describe(400, 413, 415))
async def run_query(layer: Layer, caller: Caller, body: QueryBody, accept: Accept = None) -> Response:
    """Answer a question for metrics."""
    media_type = formats.negotiate(accept)
    return _rendered(await layer.query(caller, body.parsed()), media_type)


@router.post("/query/compile", responses=problems.describe(400, 404, 413, 415, 422))
async def compile_query(layer: Layer, caller: Caller, body: QueryBody) -> CompiledResource:
    """The SQL and parameters that would answer the question; nothing runs."""
    compiled = await layer.compile(caller, body.parsed())
    columns = [ColumnResource(**formats.column(column)) for column in compiled.columns]
    plan = "hit" if compiled.is_from_cache else "miss"
    return CompiledResource(sql=compiled.sql, parameters=dict(compiled.parameters), columns=columns, plan=plan)


@router.get("/saved-queries/{name}/results", response_class=Response, responses=_ANSWERS)
async def run_saved_query(
    layer: Layer, caller: Caller, name: Annotated[str, Path(min_length=1, max_length=300)], accept: Accept = None
) -> Response:
    """Answer a saved query."""
    media_type = formats.negotiate(accept)
    return _rendered(await layer.saved_query(caller, name), media_type)


def _rendered(answer: Answer, media_type: str) -> Response:
    timings = answer.timings
    headers = {
        "Server-Timing": f"compile;dur={timings.compile_ms}, run;dur={timings.run_ms}, total;dur={timings.total_ms}",
        "Vary": "Accept",
    }
    return Response(formats.render(answer, media_type), media_type=media_type, headers=headers)
