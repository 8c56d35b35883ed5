"""Where dbt builds, and what versions are made of it; DuckDB and Snowflake are the two kinds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from workers.errors import PublicationError

MARTS: Final = "marts"

Rows = Sequence[Sequence[Any]]  # Any: of a SELECT, whose columns differ

# Everything that streams and files feed, with the expression of the last day its data speaks of.
_SOURCES: Final[Mapping[str, tuple[str, str | None]]] = {
    "online_sales": ("online_sales", "max(transaction_date)"),
    "marketing_spend": ("marketing_spend", "max(spend_date)"),
    "customers": ("customers", None),
    "discount_coupons": ("discount_coupons", None),
    "tax_amounts": ("tax_amounts", None),
    "bitcoin": ("bitcoin_events", "cast(max(event_at) as date)"),
    "news": ("news_events", "cast(max(event_at) as date)"),
    "sales_events": ("sales_events", "cast(max(event_at) as date)"),
}


class BuildDatabase(Protocol):
    """The raw tables and marts of one warehouse, on their way to a publication. Every method blocks."""

    dbt_target: str
    """The output of dbt's profile."""

    folder: Path
    """Where dbt's artifacts go, and the copy of the project that it builds."""

    def claimed(self) -> AbstractContextManager[None]:
        """Keep every other run of the pipeline off; raises `PipelineBusyError`."""

    def dbt_environment(self) -> Mapping[str, str]:
        """What dbt's profile reads from the environment."""

    def release(self) -> None:
        """Let go of what dbt keeps after it has ended."""

    def first_rows(self, relation: str, *, count: int) -> Iterator[Mapping[str, Any]]:
        """The first rows of a relation, as dbt names it: texts by column."""

    def copy_marts(self, version: str, folder: Path) -> Mapping[str, Any]:
        """Make the version's own copy of the marts; what `publication.json` says of it comes back."""

    def relation(self, schema: str, name: str, *, version: str) -> str:
        """How the version's semantic manifest names a mart."""

    def keep_only(self, versions: Collection[str]) -> None:
        """Drop the copies of all other versions that are not in a publication's folder. Idempotent."""


def facts(ask: Callable[[str], Rows], *, marts: str, raw: str, tables: Mapping[str, int]) -> dict[str, Any]:
    """What a build says of itself, for `publication.json`.

    Parameters
    ----------
    ask
        Runs a SELECT.
    marts, raw
        The schemas, as SQL.

    Raises
    ------
    PublicationError
        It holds no sales.
    """
    found = ask(f"SELECT as_of, data_through FROM {marts}.publication_facts")  # noqa: S608 - ours, as all below
    if not found or None in found[0]:
        raise PublicationError("The build holds no sales", hint="Ingest sales first: insight pipeline run --data DIR")
    ((as_of, data_through),) = found
    sources = [_freshness(ask, name, f"{raw}.{table}", day) for name, (table, day) in _SOURCES.items()]
    return {"as_of": as_of, "data_through": data_through, "tables": dict(tables), "sources": sources}


def _freshness(ask: Callable[[str], Rows], name: str, table: str, data_through: str | None) -> dict[str, Any]:
    ((rows, loaded_at, through),) = ask(
        f"SELECT count(*), max(loaded_at), {data_through or 'NULL'} FROM {table}"  # noqa: S608 - from _SOURCES
    )
    return {"name": name, "rows": rows, "loaded_at": _in_utc(loaded_at), "data_through": through}


def _in_utc(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at else None


def iso(value: date | datetime) -> str:
    """The value as `publication.json` has it."""
    return value.isoformat()
