"""What a descriptor or a ticket asks for. Either carries a command of Flight SQL whole, and no state of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message

from api.errors import UnreadableRequest
from api.flight import browsing
from api.flight.answering import Answering, Rows, whole
from api.flight.rpc import UNSUPPORTED_CALL
from api.flight.wire import flight_sql_pb2 as sql
from api.policy import Principal
from api.service import SemanticLayer

M = TypeVar("M", bound=Message)

_TYPES = f"type.googleapis.com/{sql.DESCRIPTOR.package}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something that has columns, and then rows; `ticket` asks for them, at any replica."""

    action: str
    ticket: bytes
    schema: Callable[[Principal], Awaitable[pa.Schema]]
    rows: Callable[[Principal], AbstractAsyncContextManager[Rows]]
    parameters: Mapping[str, object] = field(default_factory=dict)


class Commands:
    """Reads commands."""

    def __init__(self, layer: SemanticLayer, answering: Answering) -> None:
        self._answering = answering
        self._columns = browsing.Columns(layer)

    def read(self, body: bytes) -> Command:
        """The command that the bytes are.

        Raises
        ------
        UnreadableRequest
            They are none, or one that is not offered.
        """
        name, inner = unpacked(body)
        match name:
            case "CommandStatementQuery":
                return self.statement(parsed(sql.CommandStatementQuery, inner).query)
            case "TicketStatementQuery":
                return self.statement(text_of(parsed(sql.TicketStatementQuery, inner).statement_handle))
            case "CommandPreparedStatementQuery":
                handle = parsed(sql.CommandPreparedStatementQuery, inner).prepared_statement_handle
                return self.statement(text_of(handle))
            case "CommandGetTables":
                return self._tables(body, parsed(sql.CommandGetTables, inner))
            case _:
                return _listed(name, body, _fixed(name, inner))

    def statement(self, text: str) -> Command:
        """The statement as a command."""
        return Command(
            action="run_statement",
            ticket=packed(sql.TicketStatementQuery(statement_handle=text.encode())),
            schema=lambda principal: self._answering.schema(principal, text),
            rows=lambda principal: self._answering.rows(principal, text),
            parameters={"statement": text},
        )

    def _tables(self, ticket: bytes, asked: sql.CommandGetTables) -> Command:
        async def schema(_: Principal) -> pa.Schema:
            return browsing.TABLES_WITH_SCHEMA if asked.include_schema else browsing.TABLES

        @asynccontextmanager
        async def rows(principal: Principal) -> AsyncIterator[Rows]:
            yield whole(await self._columns.tables(principal, asked))

        return Command(action="list_tables", ticket=ticket, schema=schema, rows=rows)


def text_of(handle: bytes) -> str:
    """The statement that a handle is; `UnreadableRequest` if it is none of ours."""
    try:
        return handle.decode()
    except UnicodeDecodeError as error:
        raise UnreadableRequest(
            "The handle is none of this service", hint="Prepare the statement again.", code="invalid_handle"
        ) from error


def unsupported(name: str) -> UnreadableRequest:
    """The refusal of something that Flight SQL has and this service has not."""
    return UnreadableRequest(
        f"{name[:100]} is not offered",
        hint="The service answers queries and says what there is; it changes nothing and binds no parameters.",
        code=UNSUPPORTED_CALL,
    )


def _listed(name: str, ticket: bytes, table: pa.Table) -> Command:
    async def schema(_: Principal) -> pa.Schema:
        return table.schema

    @asynccontextmanager
    async def rows(_: Principal) -> AsyncIterator[Rows]:
        yield whole(table)

    return Command(action=_ACTIONS[name], ticket=ticket, schema=schema, rows=rows)


_ACTIONS = {
    "CommandGetSqlInfo": "get_sql_info",
    "CommandGetCatalogs": "list_catalogs",
    "CommandGetDbSchemas": "list_schemas",
    "CommandGetTableTypes": "list_table_types",
    "CommandGetXdbcTypeInfo": "list_types",
    "CommandGetPrimaryKeys": "list_keys",
    "CommandGetExportedKeys": "list_keys",
    "CommandGetImportedKeys": "list_keys",
}


def _fixed(name: str, body: bytes) -> pa.Table:
    """What is the same for everybody."""
    match name:
        case "CommandGetSqlInfo":
            return browsing.sql_info(parsed(sql.CommandGetSqlInfo, body).info)
        case "CommandGetCatalogs":
            return browsing.catalogs()
        case "CommandGetDbSchemas":
            return browsing.schemas(parsed(sql.CommandGetDbSchemas, body))
        case "CommandGetTableTypes":
            return browsing.table_types()
        case "CommandGetPrimaryKeys":
            return browsing.PRIMARY_KEYS.empty_table()
        case "CommandGetExportedKeys" | "CommandGetImportedKeys":
            return browsing.FOREIGN_KEYS.empty_table()
        case _:
            raise unsupported(name)


def unpacked(body: bytes) -> tuple[str, bytes]:
    """The name of the kind of the message that the bytes carry, and the message."""
    command = parsed(any_pb2.Any, body)
    if not command.type_url.startswith(_TYPES):
        raise UnreadableRequest(
            "The descriptor or ticket holds no command of Flight SQL",
            hint="Use a Flight SQL client, or send a CommandStatementQuery.",
            code="unreadable_command",
        )
    return command.type_url.removeprefix(_TYPES), command.value


def parsed(kind: type[M], body: bytes) -> M:
    """The message of that kind; `UnreadableRequest` if the bytes are none."""
    try:
        message: M = kind()
        message.ParseFromString(body)
    except (DecodeError, UnicodeDecodeError) as error:
        raise UnreadableRequest(
            f"{kind.DESCRIPTOR.name} cannot be read", hint="Use a Flight SQL client.", code="unreadable_command"
        ) from error
    return message


def packed(message: Message) -> bytes:
    """The message as actions and tickets carry it, with the name of its kind."""
    command = any_pb2.Any()
    command.Pack(message)
    encoded: bytes = command.SerializeToString()
    return encoded
