"""The tables of the `raw` schema: what files and streams bring, as it came, and what the workers know of their work."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Double,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

RAW: Final = MetaData(schema="raw")


# Any: a row of columns mixes integers, texts, dates and decimals.
def _file_table(name: str, **columns: TypeEngine[Any]) -> Table:
    origin: dict[str, TypeEngine[Any]] = {
        "file_hash": String(),
        "line_number": BigInteger(),
        "loaded_at": DateTime(),
    }
    every = {**columns, **origin}
    return Table(name, RAW, *(Column(key, kind, nullable=False) for key, kind in every.items()))


def _event_table(name: str) -> Table:
    events = Table(
        name,
        RAW,
        Column("kafka_topic", String, nullable=False),
        Column("kafka_partition", Integer, nullable=False),
        Column("kafka_offset", BigInteger, nullable=False),
        Column("message_key", String),
        Column("schema_version", Integer, nullable=False),
        Column("payload", String, nullable=False),
        Column("event_at", DateTime, nullable=False),
        Column("loaded_at", DateTime, nullable=False),
    )
    events.append_constraint(UniqueConstraint("kafka_topic", "kafka_partition", "kafka_offset"))
    return events


FILE_TABLES: Final[Mapping[str, Table]] = {
    made.name: made
    for made in (
        _file_table(
            "online_sales",
            customer_id=BigInteger(),
            transaction_id=BigInteger(),
            transaction_date=Date(),
            product_sku=String(),
            product_description=String(),
            product_category=String(),
            quantity=Integer(),
            avg_price=Numeric(18, 2),
            delivery_charges=Numeric(18, 2),
            coupon_status=String(),
        ),
        _file_table(
            "customers",
            customer_id=BigInteger(),
            gender=String(),
            location=String(),
            tenure_months=Integer(),
        ),
        _file_table(
            "discount_coupons",
            coupon_month=Integer(),
            product_category=String(),
            coupon_code=String(),
            discount_pct=Numeric(5, 2),
        ),
        _file_table(
            "marketing_spend",
            spend_date=Date(),
            offline_spend=Numeric(18, 2),
            online_spend=Numeric(18, 2),
        ),
        _file_table("tax_amounts", product_category=String(), gst=Numeric(5, 4)),
    )
}
"""The table of each file kind, by the kind's name."""

EVENT_TABLES: Final[Mapping[str, Table]] = {
    made.name: made for made in map(_event_table, ("bitcoin_events", "news_events", "sales_events"))
}

LOAD_FILES: Final = Table(
    "load_files",
    RAW,
    # The key makes "a file is loaded once" a promise of the warehouse, not only of this code.
    Column("file_hash", String, primary_key=True),
    Column("file_name", String, nullable=False),
    Column("file_kind", String, nullable=False),
    Column("load_id", BigInteger, nullable=False, unique=True),
    Column("rows_read", BigInteger, nullable=False),
    Column("rows_loaded", BigInteger, nullable=False),
    Column("rows_quarantined", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("loaded_at", DateTime, nullable=False),
)

REJECTED_RECORDS: Final = Table(
    "rejected_records",
    RAW,
    Column("file_hash", String, nullable=False),
    Column("file_name", String, nullable=False),
    Column("file_kind", String, nullable=False),
    Column("line_number", BigInteger, nullable=False),
    Column("column_name", String),
    Column("reason", String, nullable=False),
    Column("raw_value", String, nullable=False),
    Column("loaded_at", DateTime, nullable=False),
)

CONSUMER_OFFSETS: Final = Table(
    "consumer_offsets",
    RAW,
    Column("kafka_topic", String, primary_key=True),
    Column("kafka_partition", Integer, primary_key=True, autoincrement=False),
    Column("event_table", String, nullable=False),
    # The first offset that is not in the warehouse yet; written in one transaction with the rows before it.
    Column("next_offset", BigInteger, nullable=False),
    Column("rows_loaded", BigInteger, nullable=False),
    Column("rows_rejected", BigInteger, nullable=False),
    Column("updated_at", DateTime, nullable=False),
)
