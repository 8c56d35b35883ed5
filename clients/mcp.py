"""A server of the Model Context Protocol: metrics for assistants, with the rights of whoever asks.

Over stdio the caller is who started it (`INSIGHT_API_KEY`). Over HTTP each caller brings a key or token of the service
as bearer token; it goes on to the service, which decides, and no other right exists here.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Annotated, Any, Literal

import typer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field

from clients.connection import service_key, service_url
from clients.sdk import ApiError, AsyncClient

_INSTRUCTIONS = """\
Numbers of a shop's marketing, by metric and dimension names. List the metrics first, then the dimensions that they have
in common; look values up before you filter by them. Never compute a number yourself: ask for it. Ranges are relative to
the as-of date of the data, which every answer tells."""
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_DEFAULT_ROWS, _MOST_ROWS = 100, 1_000  # an assistant reads all of an answer

Names = Annotated[list[str], Field(description="Names of metrics.", max_length=10)]


class Transport(StrEnum):
    """How assistants reach it."""

    STDIO = "stdio"
    HTTP = "http"


class Order(BaseModel):
    """Sort by a column of the answer."""

    model_config = ConfigDict(extra="forbid")

    field: str
    descending: bool = False


class Question(BaseModel):
    """A request of `POST /v1/query`; the service checks the parts that are objects."""

    model_config = ConfigDict(extra="forbid")

    metrics: Names
    group_by: list[str] = Field(
        default=[], description="Dimensions; a time with its grain (metric_time__month) or a part (…__extract_month)."
    )
    where: list[dict[str, Any]] = Field(
        default=[],
        description=(
            'Filters on dimensions, such as {"field": "customer__location", "op": "in", "values": ["Chicago"]}; '
            "op is eq, ne, lt, lte, gt, gte, in, not_in, between, contains, starts_with, ends_with, is_null or "
            "is_not_null; any_of, all_of and not make groups."
        ),
    )
    having: list[dict[str, Any]] = Field(default=[], description="Filters on the asked metrics, of the same form.")
    time_range: dict[str, Any] | None = Field(
        default=None,
        description=(
            '{"start": "2019-01-01", "end": "2019-03-31"}, {"last": 3, "unit": "month"} or {"preset": "last_month"}.'
        ),
    )
    compare_to: Literal["previous_period", "same_period_last_year"] | None = None
    order_by: list[Order] = []
    limit: Annotated[int, Field(ge=1, le=_MOST_ROWS)] = _DEFAULT_ROWS
    offset: Annotated[int, Field(ge=0)] = 0

    def body(self) -> dict[str, Any]:
        """The request, without what is not asked for."""
        return {name: value for name, value in self.model_dump().items() if value not in (None, [])}


def make_server(*, url: str, key: str | None, verifier: KeysOfTheService | None = None) -> MCPServer[Any]:
    """The server over one service.

    Parameters
    ----------
    key
        Of the one caller, over stdio.
    verifier
        Over HTTP, where each caller brings his own.
    """
    auth = None
    if verifier is not None:
        auth = AuthSettings(issuer_url=AnyHttpUrl(url), resource_server_url=None)
    server: MCPServer[Any] = MCPServer(
        "marketing-insight",
        title="Marketing Insight",
        instructions=_INSTRUCTIONS,
        auth=auth,
        token_verifier=verifier,
        log_level="WARNING",
    )
    caller = _Caller(url=url, key=key, is_each_own=verifier is not None)
    _add_listing_tools(server, caller)
    _add_asking_tools(server, caller)
    _add_foreseeing_tools(server, caller)
    return server


class KeysOfTheService:
    """Believes the keys and tokens that the service believes; asks it each time, so that a revoked one is over."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def verify_token(self, token: str) -> AccessToken | None:
        """The caller, known by a digest of his key; None for whom the service does not know."""
        try:
            async with AsyncClient(self._url, key=token) as client:
                await client.saved_queries()
        except (ApiError, ValueError, UnicodeError):  # a token that no header can hold is none
            return None
        return AccessToken(token=token, client_id=hashlib.sha256(token.encode()).hexdigest()[:16], scopes=[])


class _Caller:
    """Whoever calls a tool just now."""

    def __init__(self, *, url: str, key: str | None, is_each_own: bool) -> None:
        self._url = url
        self._key = key
        self._is_each_own = is_each_own

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """A client with his key; what the service refuses is an error of the tool, with the hint."""
        key = self._key
        if self._is_each_own:
            if (token := get_access_token()) is None:
                msg = "No bearer token. Send a key of the service."
                raise ToolError(msg)
            key = token.token
        try:
            async with AsyncClient(self._url, key=key) as client:
                yield client
        except ApiError as error:
            msg = f"{error.code}: {error.message}. {error.hint}"
            raise ToolError(msg) from error


def _add_listing_tools(server: MCPServer[Any], caller: _Caller) -> None:
    @server.tool(annotations=_READS)
    async def list_metrics(
        search: Annotated[str | None, Field(description="Part of a name, label, description or synonym.")] = None,
    ) -> dict[str, Any]:
        """The metrics that you may see, with what each counts and what not, unit, and names people use for it."""
        async with caller.client() as client:
            found = await client.metrics(search)
        shown = ("name", "label", "description", "unit", "synonyms", "requires_metric_time")
        return {"metrics": [{key: value for key, value in metric.items() if key in shown} for metric in found]}

    @server.tool(annotations=_READS)
    async def list_dimensions(metrics: Names = []) -> dict[str, Any]:  # noqa: B006 - never changed
        """The dimensions to group and filter by; with metrics, those that all of them have in common."""
        async with caller.client() as client:
            return {"dimensions": await client.dimensions(metrics)}

    @server.tool(annotations=_READS)
    async def list_values(
        dimension: Annotated[str, Field(description="Its full name, such as customer__location.")],
        search: Annotated[str | None, Field(description="Part of the value.")] = None,
        metrics: Names = [],  # noqa: B006 - never changed
    ) -> dict[str, Any]:
        """The values of a dimension, a hundred at most; with metrics, those that have rows of them."""
        async with caller.client() as client:
            values = await client.values(dimension, metrics=metrics, search=search, limit=_DEFAULT_ROWS)
        return {"values": [_number(value) for value in values]}


def _add_asking_tools(server: MCPServer[Any], caller: _Caller) -> None:
    @server.tool(annotations=_READS)
    async def query(question: Question) -> dict[str, Any]:
        """The answer to a request: rows, what the columns are, and from when and where the data are."""
        async with caller.client() as client:
            answer = await client.query(question.body())
        rows = [{name: _number(value) for name, value in row.items()} for row in answer.rows]
        shown = ("as_of", "publication", "time_range", "compared_with", "row_count", "truncated", "withheld_groups")
        meta = {key: answer.meta[key] for key in shown}
        return {"rows": rows, "columns": answer.columns, "meta": meta}

    @server.tool(name="compile", annotations=_READS)
    async def compile_(question: Question) -> dict[str, Any]:
        """The SQL that a request would run and the values bound to it, unrun; not every role may see it."""
        async with caller.client() as client:
            return await client.compile(question.body())


def _add_foreseeing_tools(server: MCPServer[Any], caller: _Caller) -> None:
    @server.tool(annotations=_READS)
    async def list_segments() -> dict[str, Any]:
        """The groups of customers: how large, what they are worth, what their typical customer is like."""
        async with caller.client() as client:
            return {"segments": [_plain(segment) for segment in await client.segments()]}

    @server.tool(annotations=_READS)
    async def customer(customer_id: int) -> dict[str, Any]:
        """A customer's segment and how near the next one is; and what to expect of it in the next 90 days."""
        async with caller.client() as client:
            return {
                "segment": await client.customer_segment(customer_id),
                "outlook": await client.customer_outlook(customer_id),
            }

    @server.tool(annotations=_READS)
    async def forecast(metric: Annotated[str, Field(description="Its name, such as total_revenue.")]) -> dict[str, Any]:
        """A metric's next 30 days with intervals; refused where that was no better than a naive guess before."""
        async with caller.client() as client:
            return await client.forecast(metric)

    @server.tool(annotations=_READS)
    async def anomalies(metrics: Names = []) -> dict[str, Any]:  # noqa: B006 - never changed
        """The days on which metrics were not as the weeks before let expect; of all that are watched, without names."""
        async with caller.client() as client:
            return {"days": await client.anomalies(metrics)}


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """The value with its fractions as JSON has them."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return _number(value)


def _number(value: object) -> object:
    """The value as JSON has it: fractions as floats, which is what assistants read; the SDK has them exact."""
    return value if value is None or isinstance(value, str | bool | int) else float(str(value))


def serve(
    transport: Annotated[
        Transport, typer.Option(help="Over standard input and output, or over HTTP.")
    ] = Transport.STDIO,
    host: Annotated[str, typer.Option(help="Address to listen on, over HTTP.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on, over HTTP.")] = 8765,
) -> None:
    """Serve metrics to assistants over the Model Context Protocol."""
    url = service_url()
    if transport is Transport.STDIO:
        make_server(url=url, key=service_key()).run("stdio")
        return
    typer.echo(f"Serving http://{host}:{port}/mcp; callers bring a key of {url} as bearer token.", err=True)
    make_server(url=url, key=None, verifier=KeysOfTheService(url)).run("streamable-http", host=host, port=port)
