"""A FastAPI route that answers kept bytes and does nothing else: what the framework and the server cost alone."""

from __future__ import annotations

import sys
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from api.server import run


def bare(answer: bytes) -> FastAPI:
    """The application: any body is read and answered with the same bytes."""
    app = FastAPI()

    @app.post("/v1/query", response_class=Response)
    async def query(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    run(bare(Path(sys.argv[1]).read_bytes()), host="127.0.0.1", port=int(sys.argv[2]))
