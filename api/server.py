"""The server process: Granian in this process's own event loop, stopped by a signal.

Granian, because it closes a connection that never finishes its request (uvicorn waits for ever), and embedded, so
that there is one process: nothing is orphaned when it is killed.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import structlog
import uvloop
from fastapi import FastAPI
from granian.constants import Interfaces
from granian.errors import FatalError
from granian.http import HTTP1Settings
from granian.server.embed import Server

from api.errors import WrongSetting

_log = structlog.get_logger(__name__)

_HEADER_TIMEOUT_MS = 30_000


def run(app: FastAPI, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered first.

    Raises
    ------
    WrongSetting
        The port is taken.
    SemanticLayerError
        The application cannot start.
    """
    _check_free(host, port)
    try:
        uvloop.run(_serve(app, host, port))
    except FatalError as error:  # all that Granian says of an application that did not start
        raise getattr(app.state, "fault", error) from None


async def _serve(app: FastAPI, host: str, port: int) -> None:
    server: Any = Server(  # Granian ships no types
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        websockets=False,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    _log.info("serving", url=f"http://{host}:{port}")
    await server.serve()
    _log.info("stopped")


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise WrongSetting(
                f"Port {port} on {host} cannot be used: {error.strerror}",
                hint="Stop what listens there, or choose another port with --port.",
            ) from error
