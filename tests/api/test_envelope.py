"""Around a request: its body is taken as a whole, its client watched, its answer sent piece by piece."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.observer import open_observer
from api.rest.envelope import Envelope
from api.rest.exchange import Patience
from api.rest.traffic import Traffic
from api.settings import Settings
from api.state import open_state
from api.telemetry import Telemetry

# What the application would have put into the scope: something that records requests.
APP = FastAPI()

PATIENCE = Patience(max_body_bytes=1_000, body_timeout=timedelta(seconds=0.2), send_timeout=timedelta(seconds=0.2))


class Peer:
    """A client as ASGI shows it: sends parts of a body, goes away when told, takes an answer at its own pace."""

    def __init__(self, *parts: bytes, announces: int | None = None, takes: asyncio.Event | None = None) -> None:
        self._parts = list(parts)
        self._takes = takes
        self.announces = sum(map(len, parts)) if announces is None else announces
        self.gone = asyncio.Event()
        self.heard: list[Message] = []

    @property
    def scope(self) -> dict[str, Any]:
        headers = [(b"content-length", str(self.announces).encode())] if self.announces else []
        method = "POST" if self.announces else "GET"
        named = {"type": "http", "method": method, "path": "/x", "query_string": b"", "headers": headers}
        return named | {"app": APP}

    @property
    def status(self) -> int | None:
        return next((message["status"] for message in self.heard if message["type"] == "http.response.start"), None)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.heard)

    @property
    def headers(self) -> dict[str, str]:
        (start,) = (message for message in self.heard if message["type"] == "http.response.start")
        return {name.decode().lower(): value.decode() for name, value in start["headers"]}

    async def receive(self) -> Message:
        if self._parts:
            body = self._parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self._parts)}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._takes is not None and message["type"] == "http.response.body":
            await self._takes.wait()
        self.heard.append(message)


@pytest.fixture(autouse=True, scope="module")
async def _observer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    settings = Settings(_env_file=None, state_url=f"sqlite:///{tmp_path_factory.mktemp('envelope') / 'state.db'}")
    async with AsyncExitStack() as closing:
        state = open_state(settings.state_url)
        closing.callback(state.dispose)
        APP.state.observer = open_observer(settings, state, Telemetry(), closing)
        yield


async def serve(app: ASGIApp, peer: Peer, *, traffic: Traffic | None = None) -> None:
    envelope = Envelope(app, traffic=traffic or Traffic(most=10), patience=PATIENCE)
    await envelope(peer.scope, peer.receive, peer.send)


def answering(content: bytes, log: list[Any] | None = None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        if log is not None:
            log.append(message)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content})

    return app


def working(log: list[str], *, first: Callable[[Send], Awaitable[None]] | None = None) -> ASGIApp:
    """An application that works until it is cancelled."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if first is not None:
            await first(send)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    return app


async def test_a_body_in_parts_reaches_the_application_as_one() -> None:
    log: list[Any] = []
    await serve(answering(b"yes", log), Peer(b"a", b"b", b"", b"c"))

    assert log == [{"type": "http.request", "body": b"abc", "more_body": False}]


@pytest.mark.parametrize(
    "peer", [Peer(b"x" * 600, b"x" * 600), Peer(b"", announces=1_001)], ids=["in parts", "announced"]
)
async def test_a_body_that_is_too_large_never_reaches_the_application(peer: Peer) -> None:
    log: list[Any] = []
    await serve(answering(b"yes", log), peer)

    assert (peer.status, log) == (413, [])
    assert peer.headers["connection"] == "close"  # else the rest of the body would be read as the next request
    assert len(peer.headers["x-request-id"]) == 32


async def test_a_body_that_does_not_arrive_never_reaches_the_application() -> None:
    log: list[Any] = []
    peer = Peer(announces=100)
    await serve(answering(b"yes", log), peer)

    assert (peer.status, log) == (408, [])
    assert peer.headers["connection"] == "close"
    assert b"body_timeout" in peer.body


async def test_a_client_that_goes_away_within_its_body_is_not_answered() -> None:
    log: list[Any] = []
    peer = Peer(announces=100)
    peer.gone.set()
    await serve(answering(b"yes", log), peer)

    assert (peer.heard, log) == ([], [])


async def test_a_client_that_goes_away_cancels_the_work_for_it_and_nothing_else() -> None:
    log: list[str] = []
    peer = Peer()
    task = asyncio.create_task(serve(working(log), peer))
    await asyncio.sleep(0.1)
    peer.gone.set()
    await asyncio.wait_for(task, 1)

    assert log == ["cancelled"]
    assert peer.heard == []
    assert task.cancelling() == 0


async def test_who_cancels_from_outside_is_obeyed() -> None:
    log: list[str] = []
    task = asyncio.create_task(serve(working(log), Peer()))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert log == ["cancelled"]


async def test_a_client_that_leaves_with_its_answer_is_an_answered_one() -> None:
    peer, log = Peer(), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.1)  # so that it is watched
        await send({"type": "http.response.start", "status": 200, "headers": []})
        peer.gone.set()
        await send({"type": "http.response.body", "body": b"yes"})
        await asyncio.sleep(0.05)
        log.append("done")

    await asyncio.wait_for(serve(app, peer), 1)

    assert (peer.body, log) == (b"yes", ["done"])


async def test_an_application_that_waits_for_the_end_of_the_connection_sees_it() -> None:
    peer, log = Peer(), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        asyncio.get_running_loop().call_later(0.1, peer.gone.set)
        try:
            log.append((await receive())["type"])
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    await asyncio.wait_for(serve(app, peer), 1)

    assert len(log) == 1  # either way, it ended


async def test_a_large_answer_goes_out_in_pieces_and_one_that_is_not_taken_is_given_up() -> None:
    content = bytes(range(256)) * 4_000
    willing, unwilling = Peer(), Peer(takes=asyncio.Event())
    await serve(answering(content), willing)
    await asyncio.wait_for(serve(answering(content), unwilling), 1)

    assert willing.body == content
    assert len(willing.heard) > 4
    assert [message.get("more_body", False) for message in willing.heard[1:-1]] == [True] * (len(willing.heard) - 2)
    assert not willing.heard[-1]["more_body"]
    assert unwilling.body == b""


async def test_a_client_that_reads_slowly_but_reads_gets_everything() -> None:
    takes = asyncio.Event()
    peer = Peer(takes=takes)

    async def take_a_piece_at_a_time() -> None:
        while True:
            takes.set()
            await asyncio.sleep(0)
            takes.clear()
            await asyncio.sleep(0.1)

    taking = asyncio.create_task(take_a_piece_at_a_time())
    content = b"x" * 2_000_000
    await asyncio.wait_for(serve(answering(content), peer), 10)
    taking.cancel()

    assert peer.body == content


async def test_what_is_in_flight_is_bounded_but_the_services_health_is_always_told() -> None:
    traffic, log = Traffic(most=2), list[str]()
    tasks = [asyncio.create_task(serve(working(log), Peer(), traffic=traffic)) for _ in range(2)]
    await asyncio.sleep(0.05)
    refused, asked = Peer(), Peer()
    await serve(answering(b"yes"), refused, traffic=traffic)
    envelope = Envelope(answering(b"well"), traffic=traffic, patience=PATIENCE)
    await envelope(asked.scope | {"path": "/readyz"}, asked.receive, asked.send)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    after = Peer()
    await serve(answering(b"yes"), after, traffic=traffic)

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert b'"overloaded"' in refused.body
    assert (asked.status, after.status) == (200, 200)
    assert (traffic.in_flight, traffic.shed) == (0, 1)


async def test_at_the_end_what_has_not_answered_says_so_and_what_has_begun_is_cut_off() -> None:
    async def begin(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    traffic, log, silent, half = Traffic(most=2), list[str](), Peer(), Peer()
    tasks = [
        asyncio.create_task(serve(working(log), silent, traffic=traffic)),
        asyncio.create_task(serve(working(log, first=begin), half, traffic=traffic)),
    ]
    await asyncio.sleep(0.05)
    traffic.stop_taking()
    assert traffic.cut_off() == 2
    await asyncio.wait_for(asyncio.wait(tasks), 1)

    assert [task.exception() for task in tasks] == [None, None]
    assert log == ["cancelled"] * 2
    assert silent.status == 503
    assert b'"stopping"' in silent.body
    assert half.body == b"half"  # and no last part, so the server ends the connection without the last chunk
    assert half.heard[-1]["more_body"]


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Cycles stay; the service itself looks for them rarely."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    ("make", "content"),
    [
        pytest.param(lambda: Peer(b"{}"), b"yes", id="answered"),
        pytest.param(lambda: Peer(announces=100), b"yes", id="body that does not arrive"),
        pytest.param(lambda: Peer(b"", announces=1_001), b"yes", id="body that is too large"),
        pytest.param(lambda: Peer(takes=asyncio.Event()), b"x" * 1_000_000, id="answer that is not read"),
    ],
)
async def test_a_request_that_has_ended_holds_its_connection_no_longer(
    make: Callable[[], Peer], content: bytes
) -> None:
    peer = make()
    await asyncio.wait_for(serve(answering(content), peer), 1)
    await asyncio.sleep(0)  # what was cancelled ends
    connection = weakref.ref(peer)
    del peer

    assert connection() is None
