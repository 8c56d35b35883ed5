"""A small HTTP server that stands for a source API: it answers as it is told, well or badly."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server does with a request."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_off: bool = False

    @classmethod
    def of(cls, document: object, **other: object) -> Reply:
        """JSON."""
        return cls(body=json.dumps(document).encode(), **other)  # type: ignore[arg-type] # as the fields are


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request that came."""

    path: str
    params: Mapping[str, list[str]]
    headers: Mapping[str, str]


class StandInApi:
    """The server: one reply after another, the last one again and again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: list[Reply] = [Reply()]
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.asked.append(Asked(path=parts.path, params=parse_qs(parts.query), headers=headers))
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                time.sleep(reply.delay_s)
                self.send_response(reply.status)
                length = len(reply.body) + (1_000 if reply.cut_off else 0)
                for name, value in {"content-length": str(length), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as above
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def stand_in_api() -> Iterator[StandInApi]:
    """The server, for the length of the block."""
    api = StandInApi()
    try:
        yield api
    finally:
        api.close()
