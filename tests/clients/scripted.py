"""A server of OpenAI's chat completions that says what a script tells it to, over real HTTP, streamed or not.

Its embeddings, where it has any, come from a function of the text.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Line:
    """What the server does once: say something, call tools, or fail."""

    content: str = ""
    calls: tuple[tuple[str, object], ...] = ()
    status: int = 200
    raw: bytes | None = None  # instead of a completion
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0  # before the first byte
    pause_s: float = 0.0  # between parts


# From the request and its number, what is done.
Script = Callable[[Body, int], Line]
Embed = Callable[[str], list[float]]


class ScriptedModel:
    """The server while it runs; `requests` are what it was asked, `embedded` the texts that it made vectors of."""

    def __init__(self, script: Script, embed: Embed | None = None) -> None:
        self.script = script
        self.embed = embed
        self.requests: list[Body] = []
        self.embedded: list[str] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    if self.path.endswith("/embeddings") and model.embed is not None:
                        model.answer(self, model.vectors(body["input"], model.embed))
                        return
                    model.requests.append(body)
                    model.answer(self, model.script(body, len(model.requests)))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def vectors(self, texts: list[str], embed: Embed) -> Line:
        """The vectors of the texts, the last one first, as a server may send them."""
        self.embedded += texts
        data = [{"object": "embedding", "index": n, "embedding": embed(text)} for n, text in enumerate(texts)]
        return Line(raw=json.dumps({"object": "list", "model": "m", "data": data[::-1]}).encode())

    def answer(self, handler: BaseHTTPRequestHandler, line: Line) -> None:
        time.sleep(line.wait_s)
        if line.raw is not None or line.status != 200:
            self._send(handler, line, line.raw if line.raw is not None else b'{"error": {"message": "no"}}')
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for delta in _deltas(line):
            handler.wfile.write(b"data: " + json.dumps(_chunk(delta)).encode() + b"\n\n")
            handler.wfile.flush()
            time.sleep(line.pause_s)
        handler.wfile.write(b"data: [DONE]\n\n")
        handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, line: Line, content: bytes) -> None:
        handler.send_response(line.status)
        for name, value in ({"Content-Type": "application/json"} | line.headers).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


def _deltas(line: Line) -> Iterator[Body]:
    """The reply in small parts, as models stream them: names first, arguments a few letters at a time."""
    for start in range(0, len(line.content), 7):
        yield {"content": line.content[start : start + 7]}
    for index, (name, arguments) in enumerate(line.calls):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        yield {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name}}]}
        for start in range(0, len(text), 11):
            yield {"tool_calls": [{"index": index, "function": {"arguments": text[start : start + 11]}}]}


def _chunk(delta: Body) -> Body:
    return {
        "id": "scripted",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }


@contextmanager
def scripted(script: Script, embed: Embed | None = None) -> Iterator[ScriptedModel]:
    """The server for the length of the block."""
    model = ScriptedModel(script, embed)
    model.start()
    try:
        yield model
    finally:
        model.stop()


def always(line: Line) -> Script:
    """The same again and again."""
    return lambda _body, _number: line


def in_turn(*lines: Line) -> Script:
    """One after the other; the last one for all that follow."""
    return lambda _body, number: lines[min(number, len(lines)) - 1]


def submits(plan: object) -> Line:
    """The call that submits a plan."""
    return Line(calls=(("submit_plan", plan),))


# How a server fails; whoever asked it does without, in time.
FAULTS: dict[str, Script] = {
    "refuses": always(Line(status=401)),
    "is busy": always(Line(status=429, headers={"Retry-After": "60"})),
    "fails": always(Line(status=500)),
    "is slow": always(Line(wait_s=30)),
    "trickles": always(Line(content="a" * 700, pause_s=0.3)),
    "is no model": always(Line(raw=b"<html>hello</html>", headers={"Content-Type": "text/html"})),
    "streams garbage": always(Line(raw=b"data: {]\n\n", headers={"Content-Type": "text/event-stream"})),
    "streams another thing": always(Line(raw=b'data: {"a": 1}\n\n', headers={"Content-Type": "text/event-stream"})),
    "says nothing": always(Line()),
    "says nonsense": always(Line(content="I am a teapot.")),
    "redirects": always(Line(status=307, headers={"Location": "http://127.0.0.1:9/v1/chat/completions"})),
}
