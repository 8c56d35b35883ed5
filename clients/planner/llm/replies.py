"""What a language model may say, as a schema for it and as types for us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from clients.planner.snapshot import Snapshot

_MOST_TEXT, _MOST_CHOICES, _MOST_PARTS = 500, 4, 20
Name = Annotated[str, Field(min_length=1, max_length=300)]
Scalar = StrictStr | StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
_Operator = Literal[
    "eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "between", "contains", "starts_with", "ends_with", "is_null",
    "is_not_null",
]  # fmt: skip
_COUNTS = {"is_null": (0, 0), "is_not_null": (0, 0), "between": (2, 2), "in": (1, 1_000), "not_in": (1, 1_000)}


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FilterReply(_Reply):
    """A field against values; raw texts of filters are not for models."""

    field: Name
    op: _Operator
    values: list[Scalar] = Field(default=[], max_length=1_000)

    @model_validator(mode="after")
    def _as_many_values_as_the_operator_takes(self) -> FilterReply:
        fewest, most = _COUNTS.get(self.op, (1, 1))
        if not fewest <= len(self.values) <= most:
            msg = f"{self.op} takes {fewest} to {most} values"
            raise ValueError(msg)
        return self


class DaysReply(_Reply):
    """Days, both included."""

    start: date
    end: date


class OrderReply(_Reply):
    """Sort by a column."""

    field: Name
    descending: StrictBool = False


class RequestReply(_Reply):
    """The body of `/v1/query`, as far as models may write it."""

    metrics: list[Name] = Field(min_length=1, max_length=10)
    group_by: list[Name] = Field(default=[], max_length=8)
    where: list[FilterReply] = Field(default=[], max_length=_MOST_PARTS)
    having: list[FilterReply] = Field(default=[], max_length=_MOST_PARTS)
    time_range: DaysReply | None = None
    compare_to: Literal["previous_period", "same_period_last_year"] | None = None
    order_by: list[OrderReply] = Field(default=[], max_length=_MOST_PARTS)
    limit: Annotated[StrictInt, Field(ge=1, le=10_000)] | None = None

    def body(self) -> dict[str, Any]:
        """The request, without what is not asked for."""
        return {name: value for name, value in self.model_dump(mode="json").items() if value not in (None, [])}


class PlanReply(_Reply):
    """A whole plan."""

    action: Literal["query", "clarify", "refuse"]
    request: RequestReply | None = None
    message: str = Field("", max_length=4 * _MOST_TEXT)
    choices: list[Annotated[str, Field(max_length=_MOST_TEXT)]] = Field(default=[], max_length=20)

    @model_validator(mode="after")
    def _a_query_has_a_request(self) -> PlanReply:
        if (self.action == "query") != (self.request is not None):
            msg = "a request belongs to the action query, and to no other"
            raise ValueError(msg)
        if self.action == "clarify" and not self.choices:
            msg = "clarify needs choices"
            raise ValueError(msg)
        return self


class ValuesCall(_Reply):
    """A look at the values of a dimension."""

    dimension: Name
    search: Annotated[str, Field(max_length=200)] = ""


def plan_schema(snapshot: Snapshot) -> dict[str, Any]:
    """The JSON schema of a plan over this catalog: every name is one that the caller may see.

    Written by hand, not taken from the types: servers that hold to a schema know only a part of JSON Schema.
    """
    metrics = {"type": "string", "enum": sorted(snapshot.metrics)}
    groups = {"type": "string", "enum": sorted(_groups(snapshot))}
    request = _object(
        {
            "metrics": _list(metrics),
            "group_by": _list(groups),
            "where": _list(_condition(groups)),
            "having": _list(_condition(metrics)),
            "time_range": _object({"start": {"type": "string"}, "end": {"type": "string"}}, required=("start", "end")),
            "compare_to": {"type": "string", "enum": ["previous_period", "same_period_last_year"]},
            "order_by": _list(_object({"field": {"type": "string"}, "descending": {"type": "boolean"}}, ["field"])),
            "limit": {"type": "integer"},
        },
        required=("metrics",),
    )
    return _object(
        {
            "action": {"type": "string", "enum": ["query", "clarify", "refuse"]},
            "request": request,
            "message": {"type": "string"},
            "choices": _list({"type": "string"}),
        },
        required=("action", "message"),
    )


def _groups(snapshot: Snapshot) -> Iterable[str]:
    for name, dimension in snapshot.dimensions.items():
        if dimension["kind"] != "time":
            yield name
        yield from (f"{name}__{grain}" for grain in dimension["grains"])
        yield from (f"{name}__extract_{part}" for part in dimension["date_parts"])


def _condition(field: Mapping[str, Any]) -> dict[str, Any]:
    scalar = {"type": ["string", "number", "boolean"]}
    operators = list(_Operator.__args__)  # type: ignore[attr-defined]  # what a Literal holds
    return _object(
        {"field": field, "op": {"type": "string", "enum": operators}, "values": _list(scalar)}, ("field", "op")
    )


def _object(properties: Mapping[str, Any], required: Iterable[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}
