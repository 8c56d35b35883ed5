"""A service that is reached over Flight SQL and, for comparison, over REST. Clients block, so they run in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions, dbapi
from fastapi import FastAPI
from pyarrow import flight

from api.keys import ApiKeys
from api.main import create_app
from api.state import open_state
from tests.conftest import Published, connect, service_settings
from tests.services import free_port

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flown:
    """A running service and a key of it."""

    app: FastAPI
    port: int
    key: str
    state_url: str
    scheme: str = "grpc"

    @property
    def uri(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def key_of(self, role: str, **claims: tuple[str, ...]) -> str:
        """A new key of the role."""
        state = open_state(self.state_url)
        try:
            return ApiKeys(state).create(role, role=role, claims=claims)
        finally:
            state.dispose()

    @contextmanager
    def connection(self, key: str | None = None, **options: str) -> Iterator[dbapi.Connection]:
        """Of ADBC; blocks."""
        shown = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {key or self.key}"}
        with dbapi.connect(self.uri, db_kwargs=shown | options, autocommit=True) as made:
            yield made

    async def table(self, statement: str, *, key: str | None = None) -> pa.Table:
        """What ADBC gets for the statement."""

        def run() -> pa.Table:
            with self.connection(key) as connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetch_arrow_table()

        return await asyncio.to_thread(run)

    async def refusal(self, statement: str, *, key: str | None = None) -> str:
        """What the driver says of a statement that is refused, before any rows."""

        def run() -> str:
            with self.connection(key) as connection, connection.cursor() as cursor:
                try:
                    cursor.execute(statement)
                except dbapi.Error as error:
                    return str(error)
                return ""

        return await asyncio.to_thread(run)

    async def with_connection(self, use: Callable[[dbapi.Connection], T], *, key: str | None = None) -> T:
        """What the function makes of a connection, in a thread."""

        def run() -> T:
            with self.connection(key) as connection:
                return use(connection)

        return await asyncio.to_thread(run)

    def client(self, **options: Any) -> flight.FlightClient:
        """Of pyarrow, without a credential; blocks."""
        return flight.FlightClient(
            f"{self.scheme.replace('grpc', 'grpc+tcp') if self.scheme == 'grpc' else self.scheme}://127.0.0.1:{self.port}",
            **options,
        )

    def rest(self, key: str | None = None) -> httpx.AsyncClient:
        """A client of the same service over REST."""
        return connect(self.app, key=key or self.key)


async def fly(published: Published, stack: AsyncExitStack, *, role: str = "admin", **settings: object) -> Flown:
    """The service over the publication, until the stack unwinds."""
    port = free_port()
    chosen = service_settings(published, flight_port=port, **settings)
    app = create_app(chosen)
    await stack.enter_async_context(app.router.lifespan_context(app))
    made = Flown(app=app, port=port, key="", state_url=chosen.state_url)
    scheme = "grpc+tls" if chosen.tls_cert_file else "grpc"
    return Flown(app=app, port=port, key=made.key_of(role), state_url=chosen.state_url, scheme=scheme)
