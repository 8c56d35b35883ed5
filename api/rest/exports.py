"""Exports: all the rows of an answer, sent while they are computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from api.errors import SemanticLayerError, UnreadableRequest
from api.export import Export
from api.rest import formats, problems
from api.rest.access import Caller, Layer
from api.rest.contract import headers
from api.rest.queries import Accept, rows_content
from api.rest.requests import ExportBody
from api.rest.rows import ARROW, CSV, NDJSON, PARQUET, row_encoder

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1", tags=["queries"], responses=problems.describe(404))

_SUFFIXES = {NDJSON: "ndjson", CSV: "csv", ARROW: "arrow", PARQUET: "parquet"}

_ROWS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "All the rows, in the format that Accept likes best. Without the end of the body (the last chunk of "
            "HTTP/1.1) it is not whole: something went wrong on the way."
        ),
        "content": rows_content(),
        "headers": headers("Content-Disposition", "Insight-Query-Id", "Insight-Publication", "Insight-As-Of"),
    }
}


@router.post(
    "/export",
    response_class=Response,
    responses=_ROWS | problems.describe(406, 504),
)
async def run_export(
    layer: Layer,
    caller: Caller,
    request: Request,
    body: ExportBody,
    accept: Accept = None,
) -> Response:
    """All the rows of an answer in one stream, beyond the limit of a page; neither kept nor taken from what is kept."""
    media_type = formats.negotiate(accept, formats.STREAMED)
    if request.scope["http_version"] in ("1", "1.0"):  # the former is Granian's word
        raise UnreadableRequest(
            "HTTP/1.0 cannot tell a whole export from one that broke off",
            hint="Use HTTP/1.1; a proxy may need a setting for it, such as nginx's proxy_http_version.",
            code="http_version",
        )
    return ExportStream(layer.export(caller, body.parsed()), media_type)


class ExportStream(Response):
    """Sends an export, which is open for as long as this takes; nobody may take one that breaks off for whole."""

    def __init__(self, export: AbstractAsyncContextManager[Export], media_type: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. What goes wrong before the first rows is raised, and answered as a problem."""
        del scope, receive
        has_begun = False
        try:
            async with self._export as export, aclosing(_encoded(export, str(self.media_type))) as parts:
                first = await anext(parts)
                self._name(export)
                has_begun = True
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except SemanticLayerError as error:
            if not has_begun:
                raise
            # Without the last part the server ends the connection, without the last chunk.
            _log.warning("export_broke_off", code=error.code, detail=error.detail, cause=repr(error.__cause__))
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _name(self, export: Export) -> None:
        suffix = _SUFFIXES[str(self.media_type)]
        self.headers["Content-Disposition"] = f'attachment; filename="{export.query_id}.{suffix}"'
        self.headers["Insight-Query-Id"] = export.query_id
        self.headers["Insight-Publication"] = export.publication
        self.headers["Insight-As-Of"] = export.as_of.isoformat()
        self.headers["Cache-Control"] = "private, no-store"
        self.headers["Vary"] = "Accept"


async def _encoded(export: Export, media_type: str) -> AsyncGenerator[bytes, None]:
    """At least one part: what the document begins with goes with the first rows."""
    encoder = row_encoder(media_type, export.rows.schema)
    async for table in export.rows:
        # In a thread, as this takes longer than anybody else should wait for the event loop.
        yield await asyncio.to_thread(encoder.add, table)
    yield encoder.end()
