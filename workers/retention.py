"""Retention: removes from the raw tables what is too old and no build needs, and says how much that was.

Marts are built from raw rows at every build, so age alone removes nothing that counts: a line of 2019 is in the metrics
of 2019 for as long as the shop wants them. What goes is what no model reads, nor will:

* rejected records, after a while: somebody has mended them by then, or nobody will;
* rows that another row has replaced for a while: an earlier state of a corrected line, an event that came again, an
  announced line of sales that a file has brought since.

`load_files` and `consumer_offsets` stay. They are how a file or a message is loaded once, and in what order.

Ages count from the moment of loading to now, by the clock, as both are times of this machine; the as-of date is a day
of the data. Which row replaces which is what the staging views say: a test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    Delete,
    Select,
    String,
    Table,
    and_,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    table,
    try_cast,
    tuple_,
)

from workers.raw_tables import EVENT_TABLES, FILE_TABLES, LOAD_FILES, RAW, REJECTED_RECORDS
from workers.sinks import Warehouse

_FILE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "online_sales": ("transaction_id", "product_sku"),
    "customers": ("customer_id",),
    "discount_coupons": ("coupon_month", "product_category"),
    "marketing_spend": ("spend_date",),
    "tax_amounts": ("product_category",),
}

_EVENT_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "bitcoin_events": ("source", "event_at"),
    "news_events": ("url",),
    "sales_events": ("transaction_id", "product_sku"),
}
"""What makes two events the same: fields of the payload, or columns."""

ColumnSelect = Select[Any] | CompoundSelect[Any]
"""A query of rows' own keys. Any: these are a text and a number, or a text and two numbers."""

_FILE_ROW: Final = ("file_hash", "line_number")
_EVENT_ROW: Final = ("kafka_topic", "kafka_partition", "kafka_offset")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """How long what no build needs is kept, from its loading, or from the loading of what replaced it."""

    rejected: timedelta
    superseded: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What became of one raw table: rows that went (or would) and stayed, and the moment (aware) that decides."""

    table: str
    reason: str
    before: datetime
    removed_rows: int
    kept_rows: int


def apply_retention(
    warehouse: Warehouse, rules: RetentionRules, *, now: datetime, is_dry_run: bool
) -> tuple[Removal, ...]:
    """Return what was removed of each raw table, in one transaction; nothing is, in a dry run. Idempotent.

    Parameters
    ----------
    now
        The moment that ages count to, aware.

    Raises
    ------
    WarehouseError
        The warehouse refused or stayed locked; nothing was removed.
    """
    with warehouse.opened() as connection, connection.begin():
        tables = _raw_tables(connection)
        return tuple(
            _remove(connection, purge, is_dry_run=is_dry_run)
            for purge in _purges(rules, now=now, dialect=connection.dialect.name)
            if purge.table.name in tables
        )


def _raw_tables(connection: Connection) -> frozenset[str]:
    """Those that are there: the role of retention may make none."""
    tables = table("tables", column("table_schema"), column("table_name"), schema="information_schema").alias("t")
    found = select(tables.c.table_name).where(func.lower(tables.c.table_schema) == str(RAW.schema))
    return frozenset(name.lower() for name in connection.execute(found).scalars())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Purge:
    """The rows of a table that go: those whose key is among `doomed`, or all from before, if that is None."""

    table: Table
    reason: str
    before: datetime
    doomed: ColumnSelect | None = None

    @property
    def condition(self) -> ColumnElement[bool]:
        if self.doomed is None:
            return self.table.c.loaded_at < _naive(self.before)
        row = _EVENT_ROW if self.table.name in EVENT_TABLES else _FILE_ROW
        return tuple_(*(self.table.c[name] for name in row)).in_(self.doomed)


def _purges(rules: RetentionRules, *, now: datetime, dialect: str) -> Iterator[_Purge]:
    yield _Purge(table=REJECTED_RECORDS, reason="rejected", before=now - rules.rejected)
    before = now - rules.superseded
    for events in EVENT_TABLES.values():
        yield _Purge(table=events, reason="replaced", before=before, doomed=_doomed_events(events, dialect, before))
    for lines in FILE_TABLES.values():
        yield _Purge(table=lines, reason="replaced", before=before, doomed=_doomed_lines(lines, before))


def _remove(connection: Connection, purge: _Purge, *, is_dry_run: bool) -> Removal:
    rows = connection.execute(select(func.count()).select_from(purge.table)).scalar_one()
    gone = connection.execute(select(func.count()).select_from(purge.table).where(purge.condition)).scalar_one()
    if gone and not is_dry_run:
        connection.execute(_deletion(purge))
    return Removal(
        table=purge.table.name,
        reason=purge.reason,
        before=purge.before,
        removed_rows=gone,
        kept_rows=rows - gone,
    )


def _deletion(purge: _Purge) -> Delete:
    return delete(purge.table).where(purge.condition)


def _doomed_lines(lines: Table, before: datetime) -> ColumnSelect:
    """The rows of a file table that another of their key has replaced since before the moment."""
    loads = (
        select(LOAD_FILES.c.file_hash, func.max(LOAD_FILES.c.load_id).label("load_id"))
        .group_by(LOAD_FILES.c.file_hash)
        .subquery("loads")
    )
    order = (func.coalesce(loads.c.load_id, 0), lines.c.line_number)
    key = [lines.c[name] for name in _FILE_KEYS[lines.name]]
    # The moment in which the next row of the key came: null for the newest, which stays.
    replaced_at = func.lead(lines.c.loaded_at).over(partition_by=key, order_by=order).label("replaced_at")
    joined = lines.outerjoin(loads, lines.c.file_hash == loads.c.file_hash)
    rows = select(*(lines.c[name] for name in _FILE_ROW), replaced_at).select_from(joined).subquery("dated")
    return select(*(rows.c[name] for name in _FILE_ROW)).where(rows.c.replaced_at < _naive(before))


def _doomed_events(events: Table, dialect: str, before: datetime) -> ColumnSelect:
    """The events that came again before the moment or, where they are lines of sales, that a file has brought."""
    order = (events.c.loaded_at, events.c.kafka_offset, events.c.kafka_partition)
    names = _EVENT_KEYS[events.name]
    key = [events.c[name] if name in events.c else _field(events.c.payload, name, dialect) for name in names]
    replaced_at = func.lead(events.c.loaded_at).over(partition_by=key, order_by=order).label("replaced_at")
    rows = select(*(events.c[name] for name in _EVENT_ROW), replaced_at).subquery("dated")
    repeated = select(*(rows.c[name] for name in _EVENT_ROW)).where(rows.c.replaced_at < _naive(before))
    if events.name != "sales_events":
        return repeated
    return repeated.union(_brought_by_a_file(events, dialect, before))


def _brought_by_a_file(events: Table, dialect: str, before: datetime) -> Select[Any]:
    filed = FILE_TABLES["online_sales"]
    transaction_id = cast(_field(events.c.payload, "transaction_id", dialect), BigInteger)
    product_sku = _field(events.c.payload, "product_sku", dialect)
    is_same = and_(transaction_id == filed.c.transaction_id, product_sku == filed.c.product_sku)
    rows = select(*(events.c[name] for name in _EVENT_ROW)).select_from(events.join(filed, is_same))
    return rows.where(filed.c.loaded_at < _naive(before))


def _field(payload: ColumnElement[str], name: str, dialect: str) -> ColumnElement[str]:
    """A field of a JSON text as text, as the macro `json_text` has it; null where there is none."""
    if dialect == "snowflake":
        return cast(func.get_path(func.try_parse_json(payload), literal(name, literal_execute=True)), String)
    return func.json_extract_string(try_cast(payload, JSON), literal(f"$.{name}"))


def _naive(moment: datetime) -> datetime:
    # As `loaded_at` is kept: UTC, without saying so.
    return moment.astimezone(UTC).replace(tzinfo=None)
