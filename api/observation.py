"""What is known of a request while it is served: noted by whoever learns it, kept by audit, metrics and traces.

A transport opens an `Observation` and binds it to the task that serves the request; the parts beneath find it with
`observed()`, so that no signature has to carry it. Noting costs well under a microsecond each.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:  # commands import this module for a name or two
    from api.policy import Principal
    from api.query import MetricQuery

# Seeded by the system. Asking it for each id is a call into the kernel, and an id is no secret.
_ids = random.Random()  # noqa: S311

CLIENT_GONE = 499  # what nginx calls a request whose caller left before the answer


def unique_id() -> str:
    """32 hexadecimal digits that no other request or answer has; whoever sees some may guess others."""
    return f"{_ids.getrandbits(128):032x}"


class Transport(StrEnum):
    """How a request came in."""

    REST = "rest"
    GRAPHQL = "graphql"
    FLIGHT = "flight"


class Decision(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    """A part of the work that is timed by itself; `cache` has `wait` and `run` within it, where they were needed."""

    COMPILE = "compile"
    CACHE = "cache"
    WAIT = "wait"
    RUN = "run"
    RENDER = "render"


@dataclass(frozen=True, slots=True)
class StageTime:
    """When a stage began and ended, on the clock of `time.perf_counter_ns`."""

    stage: Stage
    began_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredWith:
    """What a question was answered with; a compiled one has neither id, rows nor origin."""

    metrics: tuple[str, ...]
    publication: str
    sql_hash: str
    query_id: str | None = None
    rows: int | None = None
    origin: str | None = None


class Known(Protocol):
    """What audit and log said of the same request before, as `api.known` keeps it."""

    def fit(self, observation: Observation) -> bool:
        """Whether it ended as before, for the same caller."""

    def audit_line(self, observation: Observation) -> bytes:
        """The audit's line for this time."""

    def log_line(self, observation: Observation) -> bytes | None:
        """The log's line for this time; None where that is not known."""


@dataclass(slots=True, kw_only=True)
class Observation:
    """One request. `route` and `action` are the route's template and name, so that they are few.

    `problem_status` is that of the problem which an answer carries, where the transport answers a 200 all the same; it
    then counts as the status, so that a refusal is one over every transport. `path` is the caller's text, for the log
    alone. `known` is what was said of the same request before.
    """

    request_id: str
    transport: Transport
    is_audited: bool = True
    method: str = ""
    path: str = ""
    route: str = "unmatched"
    action: str = "unknown"
    principal: Principal | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    query: MetricQuery | None = None
    answer: AnsweredWith | None = None
    status: int | None = None
    code: str | None = None
    problem_status: int | None = None
    is_cancelled: bool = False
    trace_id: str | None = None
    stages: list[StageTime] = field(default_factory=list)
    began_at_ns: int = field(default_factory=time.time_ns)
    began_ns: int = field(default_factory=time.perf_counter_ns)
    ended_ns: int | None = None
    record_id: str = ""
    recorded_as: tuple[object, ...] | None = None
    known: Known | None = None

    def __post_init__(self) -> None:
        # In order of time, so that a database appends to its index instead of writing all over it.
        self.record_id = f"{self.began_at_ns:016x}{_ids.getrandbits(64):016x}"

    @property
    def outcome(self) -> tuple[object, ...]:
        """What may change once an answer has begun to leave: a stream may break, or its caller go away."""
        return (self.decision, self.status, self.code, self.answer.rows if self.answer else None)

    @property
    def decision(self) -> Decision:
        """How it ended, or how it would if it ended now."""
        if self.is_cancelled:
            return Decision.CANCELLED
        if self.status is None or self.status >= 500:  # noqa: PLR2004 - the server's faults
            return Decision.FAILED
        return Decision.ANSWERED if self.status < 400 else Decision.REFUSED  # noqa: PLR2004 - the caller's

    @property
    def known_again(self) -> Known | None:
        """What was said before of the same request, if it ended as before."""
        return self.known if self.known is not None and self.known.fit(self) else None

    @property
    def summary(self) -> dict[str, object]:
        """What the log says of it, whatever the transport; what is not known is left out."""
        facts: dict[str, object] = {"method": self.method, "path": self.path} if self.path else {}
        facts |= {
            "status": CLIENT_GONE if self.is_cancelled else self.status,
            "ms": round(self.duration_ns / 1e6, 1),
            "code": self.code,
        }
        if (answer := self.answer) is not None:
            facts |= {"query_id": answer.query_id, "metrics": answer.metrics, "rows": answer.rows}
            facts |= {"cache": answer.origin, "publication": answer.publication}
        return {name: value for name, value in facts.items() if value is not None}

    @property
    def names(self) -> dict[str, object]:
        """What every line of the log says that is written while it is served."""
        names: dict[str, object] = {"request_id": self.request_id}
        if self.trace_id is not None:
            names["trace_id"] = self.trace_id
        if self.principal is not None:
            names["principal"] = self.principal.principal_id
        return names

    @property
    def duration_ns(self) -> int:
        """From its beginning to its end, or until now."""
        return (self.ended_ns or time.perf_counter_ns()) - self.began_ns


_current: ContextVar[Observation | None] = ContextVar("observation", default=None)


def observed() -> Observation:
    """The request that is being served; outside of one, an observation that nobody reads."""
    return _current.get() or Observation(request_id="", transport=Transport.REST)


class observing:  # noqa: N801 - used as a function that makes a block, which would cost three times as much
    """For the length of the block, and in the tasks that it begins, `observed` is this observation."""

    __slots__ = ("_observation", "_token")

    def __init__(self, observation: Observation) -> None:
        self._observation = observation

    def __enter__(self) -> None:
        self._token = _current.set(self._observation)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def named(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The log's event with the names of the request that is being served; a processor of structlog."""
    seen = _current.get()
    return event if seen is None else {**seen.names, **event}


class timed:  # noqa: N801 - as `observing`
    """The block, as far as its `end` if that is called, is a stage of the request that is being served."""

    __slots__ = ("_began_ns", "_has_ended", "_stage")

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._has_ended = False

    def __enter__(self) -> Self:
        self._began_ns = time.perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """The stage is over, whatever follows in the block."""
        if not self._has_ended:
            self._has_ended = True
            observed().stages.append(StageTime(self._stage, self._began_ns, time.perf_counter_ns()))
