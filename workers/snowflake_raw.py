"""Raw tables on Snowflake, filled through a stage: PUT of Parquet files, then one COPY in the load's transaction."""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pyarrow as pa
from pyarrow import parquet
from sqlalchemy import Column, Connection, DateTime, MetaData, String, Table, func, insert, literal, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from api.snowflake_account import SnowflakeAccount
from workers.errors import WarehouseError, WarehouseLockedError

_STAGE: Final = "raw.loading"
_LONGEST: Final = timedelta(minutes=30)  # one COPY of a file of millions of lines, on the smallest warehouse
_LOCK_TIMED_OUT: Final = 625
_SESSIONS: Final = 4

# Snowflake neither enforces keys nor lets a SELECT lock rows; an UPDATE locks, until its transaction ends.
_TURNS: Final = Table(
    "turns",
    MetaData(schema="raw"),
    Column("name", String, nullable=False),
    Column("taken_at", DateTime, nullable=False),
)


class SnowflakeRaw:
    """The raw schema of one database. Writers take turns in the warehouse itself, whichever machine they are on."""

    def __init__(self, account: SnowflakeAccount, *, lock_timeout: timedelta) -> None:
        """Keep the account; nothing is opened."""
        self._account = account
        # Kept from one operation to the next, as to sign in takes a second.
        self._engine = account.engine(
            longest=_LONGEST,
            autocommit=False,
            session={"LOCK_TIMEOUT": int(lock_timeout.total_seconds())},
            pool_size=1,
            max_overflow=_SESSIONS - 1,
            pool_recycle=3600,
        )

    def close(self) -> None:
        """Sign out."""
        self._engine.dispose()

    def connect(self) -> Connection:
        """A session."""
        return self._engine.connect()

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Nothing: readers, writers and dbt work side by side."""
        yield

    def prepare(self, connection: Connection) -> None:
        """Make the stage, and the table by which writers take turns."""
        connection.exec_driver_sql(f"CREATE STAGE IF NOT EXISTS {_STAGE}")
        connection.execute(CreateTable(_TURNS, if_not_exists=True))
        first = select(literal("writer"), func.current_timestamp().cast(DateTime))
        missing = ~select(_TURNS).exists()
        connection.execute(insert(_TURNS).from_select(["name", "taken_at"], first.where(missing)))

    def prepare_events(self, connection: Connection) -> None:
        """Nothing: a session suits any write."""

    def take_turn(self, connection: Connection) -> None:
        """Wait until every other writer's transaction has ended; then nobody else writes until this one has."""
        connection.execute(update(_TURNS).values(taken_at=func.current_timestamp().cast(DateTime)))

    def append(
        self, connection: Connection, target: Table, batches: Iterable[pa.Table], **constants: str | datetime
    ) -> None:
        """Stage the rows as files and copy them in; a row that does not fit stops the whole load."""
        with TemporaryDirectory(prefix="insight-stage-") as folder:
            rows = _write(Path(folder), batches, constants)
            if not rows:
                return
            place = f"@{_STAGE}/{uuid.uuid4().hex}"
            # Local files may not be named by a parameter; the path is ours.
            connection.exec_driver_sql(f"PUT 'file://{folder}/*.parquet' {place} AUTO_COMPRESS = FALSE")
            copied = connection.exec_driver_sql(
                f"COPY INTO {target.schema}.{target.name} FROM {place} MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE "
                "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE) ON_ERROR = ABORT_STATEMENT PURGE = TRUE"
            ).mappings()
            if (loaded := sum(int(file["rows_loaded"]) for file in copied)) != rows:
                raise WarehouseError(
                    f"{loaded} of {rows} rows of {target.name} arrived", hint="Nothing was committed; run this again"
                )

    def refusal(self, error: SQLAlchemyError) -> WarehouseError:
        """The error in our words."""
        name = self._account.database
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "errno", None) == _LOCK_TIMED_OUT:
            return WarehouseLockedError(
                f"Another process is writing to {name}", hint="Wait for it to end, then run this again"
            )
        return WarehouseError(
            f"Snowflake refused, in {name}: {' '.join(str(cause).split())[:500]}",
            hint="Nothing was committed; check user, role and warehouse of INSIGHT_WAREHOUSE_URL, run again",
        )


def _write(folder: Path, batches: Iterable[pa.Table], constants: dict[str, str | datetime]) -> int:
    """How many rows were written, a file for each batch."""
    rows = 0
    for number, batch in enumerate(batches):
        filled = batch
        for name, value in constants.items():
            kind = pa.timestamp("us") if isinstance(value, datetime) else pa.string()
            filled = filled.append_column(name, pa.repeat(pa.scalar(value, kind), batch.num_rows))
        parquet.write_table(filled, folder / f"{number:05}.parquet")
        rows += batch.num_rows
    return rows
