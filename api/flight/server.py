"""The Flight service: it tells what a statement will answer, and streams the answer.

A handle is the statement itself, so that any replica takes up what another one prepared, and nothing is kept for
clients that never come back. It gives no rights: whoever uses it is let in and checked as if the statement were new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import structlog

from api.errors import QueryTimeout, TooManyRequests, WrongSetting
from api.flight.answering import Answering, Rows
from api.flight.commands import Commands, packed, parsed, unpacked, unsupported
from api.flight.ipc import batch_messages, schema_bytes, schema_message
from api.flight.rpc import Context, Reception, Rpc
from api.flight.wire import flight_pb2 as wire
from api.flight.wire import flight_sql_pb2 as sql
from api.query import PageLimits
from api.service import SemanticLayer

_log = structlog.get_logger(__name__)

_SERVICE = "arrow.flight.protocol.FlightService"
_PREPARE, _CLOSE, _CLOSE_SESSION = "CreatePreparedStatement", "ClosePreparedStatement", "CloseSession"
_ACTIONS = {
    _PREPARE: "Check a statement, and say which columns it answers",
    _CLOSE: "Let a prepared statement go; nothing is kept of it",
    _CLOSE_SESSION: "End a session; nothing is kept of it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightSettings:
    """Where the service listens and what it takes; `certificate` and `key` are PEM, None for no TLS."""

    host: str
    port: int
    certificate: bytes | None
    key: bytes | None
    max_streams: int
    max_calls: int
    max_message_bytes: int
    send_timeout: timedelta
    grace: timedelta


class FlightServer:
    """Flight SQL on a port of its own, in this process and event loop."""

    def __init__(
        self, layer: SemanticLayer, reception: Reception, settings: FlightSettings, *, pages: PageLimits
    ) -> None:
        self._commands = Commands(layer, Answering(layer, pages=pages))
        self._reception = reception
        self._settings = settings
        self._streams = 0
        self._server: Any = grpc.aio.server(  # grpc ships no types
            maximum_concurrent_rpcs=settings.max_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),  # else a second service would take half of the calls
            ],
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))

    async def start(self) -> None:
        """Return when it listens; raises `WrongSetting` where it cannot."""
        place = f"{self._settings.host}:{self._settings.port}"
        try:
            if self._settings.certificate is not None:
                pair = (self._settings.key, self._settings.certificate)
                self._server.add_secure_port(place, grpc.ssl_server_credentials([pair]))
            else:
                self._server.add_insecure_port(place)
        except RuntimeError as error:
            raise WrongSetting(
                f"Flight SQL cannot listen on {place}",
                hint="Stop what listens there, choose INSIGHT_FLIGHT_PORT (0 is off), or mend the certificate.",
            ) from error
        await self._server.start()
        _log.info("serving_flight", url=f"grpc{'+tls' if self._settings.certificate else ''}://{place}")

    async def close(self) -> None:
        """Take no more calls, and return when those under way have ended or their time is up."""
        try:
            await self._server.stop(self._settings.grace.total_seconds())
        except asyncio.CancelledError:
            await self._server.stop(None)
            raise

    def _handlers(self) -> Any:  # noqa: ANN401 - grpc ships no types
        # Messages are read in the call, so that one that cannot be is refused and recorded like anything else.
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            "Handshake": grpc.stream_stream_rpc_method_handler(self._shake_hands, response_serializer=_written),
            "GetFlightInfo": unary(self._get_flight_info, response_serializer=_written),
            "GetSchema": unary(self._get_schema, response_serializer=_written),
            "DoGet": stream(self._do_get),
            "DoAction": stream(self._do_action, response_serializer=_written),
            "ListActions": stream(self._list_actions, response_serializer=_written),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, handlers)

    async def _shake_hands(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        """For clients that log in: the credential that they showed is the one to show from now on."""
        async with self._reception.receive(context, "Handshake") as call:
            call.note("log_in")
            call.record()
            await context.send_initial_metadata((("authorization", f"Bearer {call.credential}"),))
            async for _ in requests:
                yield wire.HandshakeResponse()

    async def _get_flight_info(self, request: bytes, context: Context) -> Any:  # noqa: ANN401 - a message
        async with self._reception.receive(context, "GetFlightInfo") as call:
            descriptor = parsed(wire.FlightDescriptor, request)
            command = self._commands.read(descriptor.cmd)
            call.note("describe_statement" if command.parameters else command.action, **command.parameters)
            info = wire.FlightInfo(
                schema=schema_bytes(await command.schema(call.principal)),
                flight_descriptor=descriptor,
                endpoint=[wire.FlightEndpoint(ticket=wire.Ticket(ticket=command.ticket))],
                total_records=-1,
                total_bytes=-1,
            )
            call.record()
            return info

    async def _get_schema(self, request: bytes, context: Context) -> Any:  # noqa: ANN401 - a message
        async with self._reception.receive(context, "GetSchema") as call:
            command = self._commands.read(parsed(wire.FlightDescriptor, request).cmd)
            call.note("describe_statement" if command.parameters else command.action, **command.parameters)
            result = wire.SchemaResult(schema=schema_bytes(await command.schema(call.principal)))
            call.record()
            return result

    async def _do_get(self, request: bytes, context: Context) -> None:
        async with self._reception.receive(context, "DoGet") as call:
            with self._stream():
                command = self._commands.read(parsed(wire.Ticket, request).ticket)
                call.note(command.action, **command.parameters)
                async with command.rows(call.principal) as rows:
                    await self._send(rows, call, context)

    async def _send(self, rows: Rows, call: Rpc, context: Context) -> None:
        """Send the rows, each message when the one before has left, so that no more is held than one message is."""
        async with aclosing(_messages(rows)) as messages:
            async for message in messages:
                if call.observation.recorded_as is None:
                    call.record()
                try:
                    async with asyncio.timeout(self._settings.send_timeout.total_seconds()):
                        await context.write(message)
                except TimeoutError as error:
                    raise QueryTimeout(
                        "The answer was not read for too long", hint="Read on, or ask for less.", code="unread_answer"
                    ) from error

    async def _do_action(self, request: bytes, context: Context) -> None:
        async with self._reception.receive(context, "DoAction") as call:
            action = parsed(wire.Action, request)
            match action.type:
                case name if name == _PREPARE:
                    result = await self._prepare(call, action.body)
                    call.record()
                    await context.write(wire.Result(body=result))
                case name if name == _CLOSE:
                    call.note("close_statement")
                    call.record()
                case name if name == _CLOSE_SESSION:
                    call.note("close_session")
                    call.record()
                    closed = wire.CloseSessionResult(status=wire.CloseSessionResult.CLOSED)
                    await context.write(wire.Result(body=closed.SerializeToString()))
                case _:
                    raise unsupported(f"The action {action.type!r}")

    async def _prepare(self, call: Rpc, body: bytes) -> bytes:
        _, inner = unpacked(body)
        asked = parsed(sql.ActionCreatePreparedStatementRequest, inner)
        command = self._commands.statement(asked.query)
        call.note("prepare_statement", **command.parameters)
        result = sql.ActionCreatePreparedStatementResult(
            prepared_statement_handle=asked.query.encode(),
            dataset_schema=schema_bytes(await command.schema(call.principal)),
        )
        return packed(result)

    async def _list_actions(self, _: bytes, context: Context) -> None:
        async with self._reception.receive(context, "ListActions") as call:
            call.note("list_actions")
            call.record()
            for name, description in _ACTIONS.items():
                await context.write(wire.ActionType(type=name, description=description))

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if self._streams >= self._settings.max_streams:
            raise TooManyRequests(
                f"{self._streams} answers are being read from this process, as many as may be",
                hint="Wait until one has ended, or raise INSIGHT_FLIGHT_MAX_STREAMS.",
                code="too_many_streams",
                retry_after=timedelta(seconds=1),
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1


async def _messages(rows: Rows) -> AsyncGenerator[bytes, None]:
    """The schema and then the rows, as they are taken; the schema waits for the first rows, in case they fail."""
    opening = schema_message(rows.schema)
    async for table in rows.tables:
        for batch in table.to_batches():
            for message in batch_messages(batch):
                if opening:
                    yield opening
                    opening = b""
                yield message
    if opening:
        yield opening


def _written(message: Any) -> bytes:  # noqa: ANN401 - any message
    encoded: bytes = message.SerializeToString()
    return encoded
