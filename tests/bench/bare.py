"""A FastAPI route that answers kept bytes and does nothing else: what the framework and the server cost alone."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response

from api.rest.traffic import Traffic
from api.server import Stopping, run

CONNECTIONS = 1000


def bare(answer: bytes) -> FastAPI:
    """The application: any body is read and answered with the same bytes."""
    app = FastAPI()
    app.state.traffic = Traffic(most=CONNECTIONS)  # which the server asks when it stops

    @app.post("/v1/query", response_class=Response)
    async def query(request: Request) -> Response:
        await request.body()
        return Response(answer, media_type="application/json")

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    run(
        bare(Path(sys.argv[1]).read_bytes()),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        connections=CONNECTIONS,
        stopping=Stopping(notice=timedelta(), grace=timedelta(seconds=1)),
    )
