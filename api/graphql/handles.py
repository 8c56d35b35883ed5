"""What a client holds of a query: `queryId`, whole in itself, so that any replica reads it and nothing more is stored.

It is the id of a long query, followed by what dbt's clients may ask and a question does not hold: the columns' names,
the saved query that it was, whether it asks for values. Whoever changes it changes nothing but how their own rows are
shown. A question that was refused has no id; its handle says why, for dbt's clients learn of it when they poll.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.errors import Failure, UnknownName
from api.graphql.vocabulary import QueryType

_MAX_CHARACTERS = 20_000
_REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """A query as its client knows it; it has an id, or a reason why it has none."""

    query_id: str = ""
    kind: QueryType = QueryType.METRIC
    aliases: Mapping[str, str] = field(default_factory=dict)
    saved_query: str | None = None
    reads_cache: bool = True
    failure: Failure | None = None

    def __str__(self) -> str:
        """As it is sent."""
        if self.failure is not None:
            told = _Refusal(detail=self.failure.detail, hint=self.failure.hint, code=self.failure.code)
            return f"{_REFUSED}.{_packed(told)}"
        extra = _Extra(
            is_values=self.kind is QueryType.DIMENSION_VALUES,
            aliases=dict(self.aliases),
            saved_query=self.saved_query,
            reads_cache=self.reads_cache,
        )
        return self.query_id if extra == _Extra() else f"{self.query_id}.{_packed(extra)}"

    @classmethod
    def parse(cls, text: str) -> Handle:
        """The handle that `str` wrote; `UnknownName` where there is none in the text."""
        query_id, _, packed = text.partition(".")
        if len(text) > _MAX_CHARACTERS:
            raise _unknown(text)
        try:
            content = base64.urlsafe_b64decode(packed)
            if query_id == _REFUSED:
                told = _Refusal.model_validate_json(content)
                return cls(failure=Failure(status=0, title="", code=told.code, detail=told.detail, hint=told.hint))
            extra = _Extra.model_validate_json(content) if packed else _Extra()
        except (ValueError, ValidationError) as error:
            raise _unknown(text) from error
        return cls(
            query_id=query_id,
            kind=QueryType.DIMENSION_VALUES if extra.is_values else QueryType.METRIC,
            aliases=extra.aliases,
            saved_query=extra.saved_query,
            reads_cache=extra.reads_cache,
        )


class _Packed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class _Extra(_Packed):
    is_values: bool = Field(default=False, alias="v")
    aliases: dict[str, str] = Field(default={}, alias="a", max_length=10)
    saved_query: str | None = Field(default=None, alias="s", max_length=300)
    reads_cache: bool = Field(default=True, alias="c")


class _Refusal(_Packed):
    code: str = Field(max_length=60)
    detail: str
    hint: str


def _packed(content: _Packed) -> str:
    text = content.model_dump_json(by_alias=True, exclude_defaults=True)
    return base64.urlsafe_b64encode(text.encode()).decode()


def _unknown(text: str) -> UnknownName:
    return UnknownName(
        f"There is no query {text[:60]!a}",
        hint="Send a queryId as createQuery answered it.",
        code="unknown_query",
    )
