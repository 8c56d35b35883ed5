"""The server process: Granian in this process's own event loop, stopped by a signal.

Granian, because it closes a connection that never finishes its request (uvicorn waits for ever), and embedded, so
that there is one process: nothing is orphaned when it is killed.
"""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import uvloop
from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.errors import FatalError
from granian.http import HTTP1Settings
from granian.server.embed import Server

from api.errors import WrongSetting
from api.rest.traffic import Traffic

_log = structlog.get_logger(__name__)

# For the whole header, and for the next request on an open connection. Longer than clients keep idle connections (5 s
# for httpx), short enough for 4,000 half-sent headers to be gone soon.
_HEADER_TIMEOUT_MS = 10_000

_BACKLOG = 1_024  # connections that the kernel holds until they are taken

_OTHER_FILES = 256  # that are open beside connections: data, state, Redis, libraries

# For cancelled requests to end, their statements to stop and everything to be closed.
_LAST_WORDS = timedelta(seconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """How long the service is not ready yet takes requests, and how long it then waits for those in flight."""

    notice: timedelta
    grace: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A chain and its private key, in files of PEM."""

    chain: Path
    key: Path


def run(
    app: FastAPI, *, host: str, port: int, certificate: Certificate | None = None, connections: int, stopping: Stopping
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight.

    SIGTERM gives notice first: the service says that it is not ready, while it answers. A second signal cuts all short.

    Raises
    ------
    WrongSetting
        The port is taken, or the certificate is none.
    SemanticLayerError
        The application cannot start.
    """
    _check_free(host, port)
    server = _server(app, host, port, certificate, connections=_affordable(connections))
    _log.info("serving", url=f"http{'s' if certificate else ''}://{host}:{port}")
    try:
        uvloop.run(_serve(server, app, stopping))
    except FatalError as error:  # all that Granian says of an application that did not start
        raise getattr(app.state, "fault", error) from None


def _server(app: FastAPI, host: str, port: int, certificate: Certificate | None, *, connections: int) -> Any:  # noqa: ANN401 - Granian ships no types
    if certificate is not None:
        _check_certificate(certificate)
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        websockets=False,
        log_enabled=False,
        backlog=_BACKLOG,
        backpressure=connections,
        # HTTP/1.1 alone: Granian waits for ever for the first byte where it has to find out the version, and for
        # the first request of an HTTP/2 connection.
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS),
        ssl_cert=certificate.chain if certificate else None,
        ssl_key=certificate.key if certificate else None,
        ssl_protocol_min=SSLProtocols.tls12,
    )


async def _serve(server: Any, app: FastAPI, stopping: Stopping) -> None:  # noqa: ANN401 - Granian ships no types
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signals.put_nowait, number)
    serving = asyncio.create_task(server.serve())
    asked = asyncio.create_task(signals.get())
    await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        _log.info("stopping", signal=asked.result().name, in_flight=app.state.traffic.in_flight)
        app.state.traffic.stop_taking()
        notice = stopping.notice if asked.result() is signal.SIGTERM else timedelta()
        await _wind_down(server, serving, app.state.traffic, notice=notice, grace=stopping.grace, signals=signals)
    asked.cancel()
    if not serving.cancelled():
        serving.result()  # raises what kept it from starting
    _log.info("stopped")


async def _wind_down(
    server: Any,  # noqa: ANN401 - Granian ships no types
    serving: asyncio.Task[None],
    traffic: Traffic,
    *,
    notice: timedelta,
    grace: timedelta,
    signals: asyncio.Queue[signal.Signals],
) -> None:
    """Return when the server has ended, what was in flight with it, or its time is up."""
    again = asyncio.create_task(signals.get())
    await asyncio.wait((serving, again), timeout=notice.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
    server.stop()
    await asyncio.wait((serving, again), timeout=grace.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not serving.done():
        _log.warning("cut_off", requests=traffic.cut_off())
        await asyncio.wait((serving,), timeout=_LAST_WORDS.total_seconds())
    if not serving.done():  # a client does not read the end of its answer
        serving.cancel()
        await asyncio.wait((serving,))


def _affordable(connections: int) -> int:
    """The connections that the system's limit of open files leaves room for, which is raised as far as it may be."""
    wanted = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _log.warning("few_open_files", allowed=soft, wanted=wanted, hint="Raise the limit: ulimit -n")
        return max(16, soft - _OTHER_FILES)
    return connections


def _check_certificate(certificate: Certificate) -> None:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate.chain, certificate.key)
    except OSError as error:  # of which ssl.SSLError is one
        raise WrongSetting(
            f"{certificate.chain} and {certificate.key} are no certificate and its key: {error.strerror or error}",
            hint="Mend INSIGHT_TLS_CERT_FILE or INSIGHT_TLS_KEY_FILE: two files of PEM that belong together.",
        ) from error


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
