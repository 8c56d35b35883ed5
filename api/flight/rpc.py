"""One call over gRPC as it is observed: its caller let in by the gate, recorded before its answer leaves."""

from __future__ import annotations

import asyncio
import base64
import binascii
import uuid
from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NoReturn, TypeAlias
from urllib.parse import quote, unquote

import grpc
import structlog

from api.errors import InternalFault, SemanticLayerError, Unavailable
from api.gate import Gate
from api.observation import CLIENT_GONE, Observation, Transport, observing
from api.observer import Observer
from api.policy import Principal
from api.wording import worded

_log = structlog.get_logger(__name__)

UNSUPPORTED_CALL = "unsupported_call"  # the code of what gRPC calls unimplemented

_MESSAGE_BYTES = 2_000  # of a message as gRPC writes it into a trailer; proxies refuse those of some KB

_WRITTEN_AS_THEY_ARE = bytes(range(0x20, 0x7F)).replace(b"%", b"")  # all others are three bytes each

_STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Context: TypeAlias = Any  # grpc ships no types; it is a `grpc.aio.ServicerContext`


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """A call whose caller is let in."""

    principal: Principal
    credential: str | None = field(repr=False)
    observation: Observation
    observer: Observer

    def note(self, action: str, **parameters: object) -> None:
        """Say what the call asks for, as far as it is not noted by whoever answers."""
        self.observation.action = action
        self.observation.parameters = parameters

    def record(self) -> None:
        """Write the record; to be called before the first part of the answer leaves; `Unavailable` if it cannot be."""
        self.observation.status = 200
        self.observer.record(self.observation)


class Reception:
    """Where every call comes in."""

    def __init__(self, gate: Gate, observer: Observer) -> None:
        self._gate = gate
        self._observer = observer

    @asynccontextmanager
    async def receive(self, context: Context, method: str) -> AsyncIterator[Rpc]:
        """The call, its caller known; whatever is raised in the block ends it with a status that says so."""
        seen = Observation(
            request_id=uuid.uuid4().hex,
            transport=Transport.FLIGHT,
            method="RPC",
            route=f"/arrow.flight.protocol.FlightService/{method}",
            action=method,
        )
        headers = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self._observer.begin(seen, headers)
        with observing(seen):
            try:
                shown = _credential(headers)
                admitted = await self._gate.admit(shown, address=_address(context.peer()))
                yield Rpc(principal=admitted.principal, credential=shown, observation=seen, observer=self._observer)
            except asyncio.CancelledError:
                seen.is_cancelled, seen.status = True, seen.status or CLIENT_GONE
                raise
            except SemanticLayerError as error:
                await self._refuse(context, seen, error)
            except Exception:  # noqa: BLE001 - the outermost of a call
                _log.exception("call_crashed", method=method)
                await self._refuse(
                    context, seen, InternalFault("Something went wrong on our side", hint="Report the request id.")
                )
            finally:
                seen.ended_ns = seen.began_ns + seen.duration_ns
                self._observer.end(seen)
                _log_end(seen, method)

    async def _refuse(self, context: Context, seen: Observation, error: SemanticLayerError) -> NoReturn:
        seen.status, seen.code = error.status, error.code
        if seen.recorded_as is None:
            try:
                self._observer.record(seen)
            except Unavailable as unrecorded:
                error = unrecorded
                seen.status, seen.code = error.status, error.code
        await context.abort(_code_of(error), message_of(error), _trailers(seen, error))
        raise AssertionError("abort raises")  # it has no types to say so


def message_of(error: SemanticLayerError) -> str:
    """What went wrong, what to do next, and the code of the error, in this order."""
    text = (
        f"{error.detail}. {worded(error.hint, Transport.FLIGHT)}".replace("\0", "\ufffd")
        .encode("utf-8", "replace")
        .decode()
    )
    lengths = accumulate(len(quote(character, safe=_WRITTEN_AS_THEY_ARE)) for character in text)
    fitting = bisect_right(list(lengths), _MESSAGE_BYTES)
    shown = text if fitting == len(text) else f"{text[:fitting]}..."
    return f"{shown} [{error.code}]"


def _credential(headers: Mapping[str, str]) -> str | None:
    """The key or token: as a bearer, or as the password of whoever can only log in."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer" | "token":
            return value.strip() or None
        case "basic":
            with suppress(binascii.Error, UnicodeDecodeError):
                return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2] or None
    return headers.get("x-api-key")


def _code_of(error: SemanticLayerError) -> Any:  # noqa: ANN401 - grpc ships no types
    # Whatever else the caller can mend is one status: a name that is not known would else be "not found", which
    # clients take for a missing method.
    if error.code == UNSUPPORTED_CALL:
        return grpc.StatusCode.UNIMPLEMENTED
    return _STATUS.get(error.status, grpc.StatusCode.INVALID_ARGUMENT)


def _trailers(seen: Observation, error: SemanticLayerError) -> tuple[tuple[str, str], ...]:
    told = (("insight-code", error.code), ("insight-request-id", seen.request_id))
    if error.retry_after is None:
        return told
    return (*told, ("retry-after", str(max(1, round(error.retry_after.total_seconds())))))


def _address(peer: str) -> str | None:
    """The client's address, of a peer such as `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else None


def _log_end(seen: Observation, method: str) -> None:
    _log.info("call", method=method, action=seen.action, **seen.summary)
