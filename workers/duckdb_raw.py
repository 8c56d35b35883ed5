"""Raw tables in a DuckDB file, which one process may write or many may read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Table, column, create_engine, insert, literal, select, table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from workers.errors import WarehouseError, WarehouseLockedError

SHORTEST_LOCK_PAUSE_S: Final = 0.05
LONGEST_LOCK_PAUSE_S: Final = 2.0
"""A pause is drawn at random below a bound that doubles from the one to the other."""

_LOCK_SIGNS: Final = ("Could not set lock on file", "being used by another process")
_INCOMING: Final = "incoming_rows"

# By default DuckDB compresses and rewrites the last row group (123,000 rows) whenever the file is closed: 106 µs a
# row of 1 KB, where 20,000 were written at a time; 17 µs with these.
_EVENT_WRITING: Final = (
    "PRAGMA disable_checkpoint_on_shutdown",
    "SET checkpoint_threshold = '64MB'",
    "SET force_compression = 'uncompressed'",
    # Else it keeps what it can, up to most of the machine.
    "SET memory_limit = '256MB'",
    "SET enable_progress_bar = false",
)


class DuckDbRaw:
    """The raw tables of one file.

    No connection outlives its operation: the file is free again between two loads, and an operation that finds it
    taken waits, with growing pauses, up to a time-box. Workers of ours take turns by a lock file beside it.
    """

    def __init__(self, url: URL, *, lock_timeout: timedelta) -> None:
        """Keep where it is; its folder is made if it is missing."""
        self._file = str(url.database)
        self._lock_timeout = lock_timeout
        Path(self._file).parent.mkdir(parents=True, exist_ok=True)
        self._engine = create_engine(url, poolclass=NullPool)
        self._is_made = False

    def close(self) -> None:
        """Release what the engine holds."""
        self._engine.dispose()

    def connect(self) -> Connection:
        """A connection, once nobody else has the file."""
        attempts = Retrying(
            retry=retry_if_exception(_is_lock),
            wait=wait_random_exponential(multiplier=SHORTEST_LOCK_PAUSE_S, max=LONGEST_LOCK_PAUSE_S),
            stop=stop_after_delay(self._lock_timeout),
            reraise=True,
        )
        return attempts(self._engine.connect)

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Keep other workers off the file: dbt, which waits for nobody, must find it free."""
        if self._is_made and not Path(self._file).exists():
            # DuckDB would make an empty one, and the lock its folder: where a disk is missing, say.
            raise WarehouseError(
                f"The warehouse {self._file} is gone", hint="Bring it back; nothing was written in the meantime"
            )
        # Not of one thread: a writer is closed by another one than opened it.
        lock = FileLock(f"{self._file}.lock", timeout=self._lock_timeout.total_seconds(), thread_local=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise self._locked() from error
        try:
            yield
        finally:
            lock.release()

    def prepare(self, connection: Connection) -> None:
        """Remember that the file is there, with its tables: from now on nobody makes another one."""
        del connection
        self._is_made = True

    def prepare_events(self, connection: Connection) -> None:
        """Set the session to small, frequent writes."""
        for setting in _EVENT_WRITING:
            connection.exec_driver_sql(setting)
        connection.commit()

    def take_turn(self, connection: Connection) -> None:
        """Nothing: whoever has the file is alone."""

    def append(
        self, connection: Connection, target: Table, batches: Iterable[pa.Table], **constants: str | datetime
    ) -> None:
        """Read the rows where they lie; as parameters they would go in one by one."""
        driver = connection.connection.driver_connection
        for rows in batches:
            driver.register(_INCOMING, rows)  # type: ignore[union-attr]  # DuckDB's own, which has no type here
            incoming = table(_INCOMING, *map(column, rows.column_names))
            values = [*incoming.c, *(literal(value).label(key) for key, value in constants.items())]
            connection.execute(insert(target).from_select([*rows.column_names, *constants], select(*values)))
            # Not in a finally: after an error the transaction refuses this too, and would hide the error.
            driver.unregister(_INCOMING)  # type: ignore[union-attr]  # as above

    def refusal(self, error: SQLAlchemyError) -> WarehouseError:
        """The error in our words."""
        if _is_lock(error):
            return self._locked()
        cause = str(error.orig if isinstance(error, DBAPIError) else error).splitlines()[0]
        return WarehouseError(
            f"The warehouse {self._file} refused: {cause}",
            hint="Nothing was committed; check the file, its permissions and the free disk space, run again",
        )

    def _locked(self) -> WarehouseLockedError:
        return WarehouseLockedError(
            f"The warehouse {self._file} is in use by another process",
            hint="Wait for the other run to end, or close the program that has it open, then run this again",
        )


def _is_lock(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and any(sign in str(error.orig) for sign in _LOCK_SIGNS)
