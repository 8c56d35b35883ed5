"""One question over REST, GraphQL and Flight SQL: the same rows, policy, kept answer, and kind of record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import pytest
from google.protobuf import any_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import flight

from api.audit_store import AuditQuestion, AuditStore
from api.flight.wire.flight_sql_pb2 import TicketStatementQuery
from api.state import open_state
from tests.api.flight.flown import Flown, fly
from tests.conftest import Published

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  restricted:
    metrics: [total_revenue, line_count, average_order_value, customer_count, churn_rate]
    dimensions: [metric_time, "product__*", "customer__*", "sale__*", customer]
    rows: [{field: customer__location, op: in, values: [Chicago, New York]}]
    hashed: [customer__gender]
"""
METRICS = ("total_revenue", "line_count", "average_order_value", "customer_count", "churn_rate", "discount_rate")
GROUP_BYS = (
    "metric_time__month",
    "metric_time__quarter",
    "metric_time__extract_dow",
    "customer__gender",
    "customer__location",
    "customer__tenure_band",
    "product__category",
    "sale__coupon_status",
    "calendar_date__is_weekend",
    "marketing__channel",  # which is none
)
VALUES: dict[str, tuple[str, ...]] = {
    "customer__gender": ("F", "M"),
    "customer__location": ("Chicago", "California", "it's nowhere", "{{ 7 * 7 }}"),
    "product__category": ("Apparel", "Nest-USA", "Büro “Ω”"),
    "sale__coupon_status": ("Used", "Clicked"),
}

DOCUMENT = """
mutation($m: [MetricInput!], $g: [GroupByInput!], $w: [WhereInput!], $o: [OrderByInput!], $l: Int) {
  createSynchronousQuery(metrics: $m, groupBy: $g, where: $w, orderBy: $o, limit: $l) { totalPages rows }
}"""
OF_THE_REQUEST = frozenset(("id", "request_id", "at", "transport", "cache", "ms"))

Json = dict[str, Any]
Rows = list[Json]
Ask = Callable[["Question", str], Awaitable["Outcome"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A comparison of a dimension with texts, or that of a metric with a number."""

    name: str
    operator: str
    values: tuple[str, ...] = ()
    number: int | None = None

    @property
    def body(self) -> Json:
        return {"field": self.name, "op": self.operator, "values": list(self.values or (self.number,))}

    @property
    def text(self) -> str:
        if self.number is not None:
            return f"{{{{ Metric('{self.name}') }}}} {'>' if self.operator == 'gt' else '<='} {self.number}"
        texts = ", ".join("'" + value.replace("'", "''") + "'" for value in self.values)
        return f"{{{{ Dimension('{self.name}') }}}} {self.operator.replace('_', ' ').upper()} ({texts})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, whatever the transport."""

    metrics: tuple[str, ...]
    group_by: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    having: tuple[Condition, ...] = ()
    order_by: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (*self.where, *self.having)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rows, or the code of the refusal."""

    rows: Rows | None = None
    code: str | None = None


@st.composite
def questions(draw: st.DrawFn) -> Question:
    metrics = draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True))
    group_by = draw(st.lists(st.sampled_from(GROUP_BYS), max_size=3, unique=True))
    where = []
    for name in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=2, unique=True)):
        values = draw(st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=3, unique=True))
        where.append(Condition(name=name, operator=draw(st.sampled_from(["in", "not_in"])), values=tuple(values)))
    having = []
    if draw(st.booleans()):
        number = draw(st.integers(0, 100_000))
        having.append(
            Condition(name=draw(st.sampled_from(metrics)), operator=draw(st.sampled_from(["gt", "lte"])), number=number)
        )
    ordered = draw(st.lists(st.sampled_from([*metrics, *group_by]), max_size=2, unique=True))
    return Question(
        metrics=tuple(metrics),
        group_by=tuple(group_by),
        where=tuple(where),
        having=tuple(having),
        order_by=tuple((name, draw(st.booleans())) for name in ordered),
        limit=draw(st.none() | st.integers(1, 30)),
    )


class Service:
    """The service with its policy, asked over each transport."""

    def __init__(self, flown: Flown, stack: AsyncExitStack) -> None:
        self._flown = flown
        self._client = stack.enter_context(flown.client())
        self._stack = stack
        self._rest: dict[str, httpx.AsyncClient] = {}
        self.transports: dict[str, Ask] = {
            "rest": self.over_rest,
            "graphql": self.over_graphql,
            "flight": self.over_flight,
        }

    async def http(self, key: str) -> httpx.AsyncClient:
        if key not in self._rest:
            self._rest[key] = await self._stack.enter_async_context(self._flown.rest(key))
        return self._rest[key]

    async def over_rest(self, asked: Question, key: str) -> Outcome:
        body = {
            "metrics": asked.metrics,
            "group_by": asked.group_by,
            "where": [each.body for each in asked.where],
            "having": [each.body for each in asked.having],
            "order_by": [{"field": name, "descending": is_descending} for name, is_descending in asked.order_by],
        } | ({"limit": asked.limit} if asked.limit else {})
        response = await (await self.http(key)).post("/v1/query", json=body)
        answer = json.loads(response.content, parse_float=Decimal)
        return Outcome(rows=answer["data"]) if response.status_code == 200 else Outcome(code=answer["code"])

    async def over_graphql(self, asked: Question, key: str) -> Outcome:
        variables = {
            "m": [{"name": name} for name in asked.metrics],
            "g": [group_by_input(name) for name in asked.group_by],
            "w": [{"sql": each.text} for each in asked.conditions],
            "o": [
                {"metric": {"name": name}, "descending": down}
                if name in asked.metrics
                else {"groupBy": group_by_input(name), "descending": down}
                for name, down in asked.order_by
            ],
            "l": asked.limit,
        }
        body = {"query": DOCUMENT, "variables": variables}
        response = await (await self.http(key)).post("/graphql", json=body)
        answer = json.loads(response.content, parse_float=Decimal)
        if "errors" in answer:
            return Outcome(code=answer["errors"][0]["extensions"]["code"])
        found = answer["data"]["createSynchronousQuery"]
        assert found["totalPages"] <= 1, "the property draws answers of one page"
        return Outcome(rows=found["rows"])

    async def over_flight(self, asked: Question, key: str) -> Outcome:
        order_by = [
            f"{'Metric' if name in asked.metrics else 'Dimension'}({json.dumps(name)}).descending({down})"
            for name, down in asked.order_by
        ]
        arguments = {
            "metrics": json.dumps(asked.metrics),
            "group_by": json.dumps(asked.group_by),
            "where": json.dumps([each.text for each in asked.conditions]),
            "order_by": f"[{', '.join(order_by)}]",
        } | ({"limit": str(asked.limit)} if asked.limit else {})
        call = ", ".join(f"{name}={value}" for name, value in arguments.items())
        packed = any_pb2.Any()
        packed.Pack(TicketStatementQuery(statement_handle=f"{{{{ semantic_layer.query({call}) }}}}".encode()))
        shown = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {key}".encode())])

        def read() -> Outcome:
            try:
                table = self._client.do_get(flight.Ticket(packed.SerializeToString()), shown).read_all()
            except (flight.FlightError, ValueError) as error:
                return Outcome(code=str(error).rpartition("[")[2].partition("]")[0])
            return Outcome(rows=[{name: plain(value) for name, value in row.items()} for row in table.to_pylist()])

        return await asyncio.to_thread(read)

    async def records(self, *keys: str) -> list[Json]:
        """What the audit says of the requests of the keys, in their order."""
        async with asyncio.timeout(30):
            while "insight_audit_backlog 0.0" not in (await (await self.http(keys[0])).get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        state = open_state(self._flown.state_url)
        found = AuditStore(state).newest(AuditQuestion(), limit=100_000)
        state.dispose()
        ids = {key.split("_")[1] for key in keys}
        return [dict(each) for each in reversed(found) if each["principal_id"] in ids]


def group_by_input(name: str) -> Json:
    time, _, part = name.partition("__")
    if time != "metric_time":
        return {"name": name}
    if part.startswith("extract_"):
        return {"name": time, "datePart": part.removeprefix("extract_").upper()}
    return {"name": time, "timeGranularity": part}


def plain(value: object) -> object:
    """The value as JSON writes it."""
    match value:
        case date():
            return value.isoformat()
        case float():
            return Decimal(repr(value))
        case _:
            return value


@pytest.fixture(scope="module")
async def ruled(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Flown, Service]]:
    """A service under the policy, with a state of its own."""
    folder = tmp_path_factory.mktemp("ruled")
    (folder / "policy.yml").write_text(POLICY)
    async with AsyncExitStack() as stack:
        flown = await fly(
            synthetic, stack, policy_file=folder / "policy.yml", state_url=f"sqlite:///{folder / 'state.db'}"
        )
        yield flown, Service(flown, stack)


batches = st.lists(
    st.tuples(questions(), st.sampled_from(["admin", "restricted"]), st.permutations(["rest", "graphql", "flight"])),
    min_size=4,
    max_size=10,
)
sometimes = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@sometimes
@given(batch=batches)
async def test_a_question_is_one_question_over_every_transport(
    ruled: tuple[Flown, Service], batch: list[tuple[Question, str, list[str]]]
) -> None:
    flown, service = ruled
    keys = {role: flown.key_of(role) for role in ("admin", "restricted")}

    for asked, role, order in batch:
        outcomes = [await service.transports[name](asked, keys[role]) for name in order]
        assert outcomes[1:] == outcomes[:-1]
        if role == "restricted" and outcomes[0].rows and "customer__location" in asked.group_by:
            assert {row["customer__location"] for row in outcomes[0].rows} <= {"Chicago", "New York"}

    records = iter(await service.records(*keys.values()))
    for asked, _, order in batch:
        one, two, three = (next(records) for _ in order)
        assert [one["transport"], two["transport"], three["transport"]] == order
        assert told(one) == told(two) == told(three)
        assert one["what"]["metrics"] == list(asked.metrics)
        if one["decision"] == "answered":
            assert two["cache"] == three["cache"] == "hit"
    assert next(records, None) is None


def told(record: Json) -> Json:
    """What must not differ: all but how and when it was asked."""
    return {name: value for name, value in record.items() if name not in OF_THE_REQUEST}
