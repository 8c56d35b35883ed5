"""Raw tables as the ingestion writes them, loaded by DuckDB alone.

The metric tests must not depend on the code that they will one day vouch for; so this loader shares nothing with
``workers/``: one ``read_csv`` per file.
"""

import hashlib
from pathlib import Path

import duckdb

_TABLES = """
create schema if not exists raw;
create table if not exists raw.online_sales (
    customer_id bigint, transaction_id bigint, transaction_date date, product_sku varchar,
    product_description varchar, product_category varchar, quantity integer, avg_price decimal(18, 2),
    delivery_charges decimal(18, 2), coupon_status varchar,
    file_hash varchar not null, line_number bigint not null, loaded_at timestamp not null);
create table if not exists raw.customers (
    customer_id bigint, gender varchar, location varchar, tenure_months integer,
    file_hash varchar not null, line_number bigint not null, loaded_at timestamp not null);
create table if not exists raw.discount_coupons (
    coupon_month integer, product_category varchar, coupon_code varchar, discount_pct decimal(5, 2),
    file_hash varchar not null, line_number bigint not null, loaded_at timestamp not null);
create table if not exists raw.marketing_spend (
    spend_date date, offline_spend decimal(18, 2), online_spend decimal(18, 2),
    file_hash varchar not null, line_number bigint not null, loaded_at timestamp not null);
create table if not exists raw.tax_amounts (
    product_category varchar, gst decimal(5, 4),
    file_hash varchar not null, line_number bigint not null, loaded_at timestamp not null);
create table if not exists raw.load_files (
    file_hash varchar, file_name varchar, file_kind varchar, load_id bigint, rows_read bigint, rows_loaded bigint,
    rows_quarantined bigint, seconds double, loaded_at timestamp);
create table if not exists raw.rejected_records (
    file_hash varchar, file_name varchar, file_kind varchar, line_number bigint, column_name varchar,
    reason varchar, raw_value varchar, loaded_at timestamp);
"""

_STREAM_TABLE = """
create table if not exists raw.{name} (
    kafka_topic varchar, kafka_partition integer, kafka_offset bigint, message_key varchar,
    schema_version integer, payload varchar, event_at timestamp, loaded_at timestamp);
"""

STREAMS = ("bitcoin_events", "news_events", "sales_events")

_DATE = "cast(strptime(trim({0}), ['%m/%d/%Y', '%Y%m%d', '%Y-%m-%d', '%m-%d-%Y']) as date)"
_TEXT = "regexp_replace(trim({0}), '\\s+', ' ', 'g')"
_MONTH = "month(strptime(trim({0}) || ' 1 2000', '%b %d %Y'))"
_PLAIN = "trim({0})"

FILES = {
    "Online_Sales.csv": (
        "online_sales",
        (
            ("CustomerID", _PLAIN),
            ("Transaction_ID", _PLAIN),
            ("Transaction_Date", _DATE),
            ("Product_SKU", _TEXT),
            ("Product_Description", _TEXT),
            ("Product_Category", _TEXT),
            ("Quantity", _PLAIN),
            ("Avg_Price", _PLAIN),
            ("Delivery_Charges", _PLAIN),
            ("Coupon_Status", _TEXT),
        ),
    ),
    "CustomersData.csv": (
        "customers",
        (("CustomerID", _PLAIN), ("Gender", _TEXT), ("Location", _TEXT), ("Tenure_Months", _PLAIN)),
    ),
    "Discount_Coupon.csv": (
        "discount_coupons",
        (("Month", _MONTH), ("Product_Category", _TEXT), ("Coupon_Code", _TEXT), ("Discount_pct", _PLAIN)),
    ),
    "Marketing_Spend.csv": (
        "marketing_spend",
        (("Date", _DATE), ("Offline_Spend", _PLAIN), ("Online_Spend", _PLAIN)),
    ),
    "Tax_amount.csv": ("tax_amounts", (("Product_Category", _TEXT), ("GST", _PLAIN))),
}


def create_raw_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Create every raw table that is missing."""
    connection.execute(_TABLES)
    for name in STREAMS:
        connection.execute(_STREAM_TABLE.format(name=name))


def load_files(connection: duckdb.DuckDBPyConnection, data_dir: Path) -> None:
    """Load the files of `data_dir`, in the order of ``FILES``, after what is loaded already."""
    create_raw_tables(connection)
    for name, (table, columns) in FILES.items():
        if (data_dir / name).exists():
            _load_file(connection, data_dir / name, table=table, columns=columns)


def _load_file(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    *,
    table: str,
    columns: tuple[tuple[str, str], ...],
) -> None:
    cells = ", ".join(form.format(f'"{header}"') for header, form in columns)
    file_hash = hashlib.sha256(path.read_bytes()).hexdigest()
    connection.execute(
        f"insert into raw.{table} "
        f"select {cells}, ?, row_number() over () + 1, timestamp '2020-01-01' "
        "from read_csv(?, all_varchar = true, header = true, parallel = false)",
        [file_hash, str(path)],
    )
    connection.execute(
        "insert into raw.load_files "
        "select ?, ?, ?, (select count(*) + 1 from raw.load_files), count(*), count(*), 0, 0.0, timestamp '2020-01-01' "
        f"from raw.{table} where file_hash = ?",
        [file_hash, path.name, table, file_hash],
    )
