"""Where the warehouse is: a DuckDB file, or a database of a Snowflake account."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from api.snowflake_account import SnowflakeAccount
from workers.errors import SettingError


@dataclass(frozen=True, slots=True, kw_only=True)
class DuckDbFile:
    """The file of the embedded warehouse."""

    url: URL

    @property
    def path(self) -> Path:
        """The file."""
        return Path(str(self.url.database))


Location: TypeAlias = DuckDbFile | SnowflakeAccount


def read_location(url: str) -> Location:
    """The place that INSIGHT_WAREHOUSE_URL names.

    Raises
    ------
    SettingError
        The URL cannot be read, names a dialect that is not supported, or lacks a part.

    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        # The URL may hold a password: it is not repeated.
        raise SettingError("The warehouse URL cannot be read", hint=_HINT) from error
    match parsed.get_backend_name():
        case "duckdb":
            if not parsed.database or parsed.database.startswith(":memory:"):
                # Another process (dbt) reads what is written here, and memory cannot be shared.
                raise SettingError("The warehouse URL names no file", hint=_HINT)
            return DuckDbFile(url=parsed)
        case "snowflake":
            try:
                return SnowflakeAccount.of(parsed)
            except ValueError as error:
                reason = _reason(error)
                raise SettingError(f"The warehouse cannot be used: {reason}", hint=_HINT) from None  # it holds values
        case dialect:
            raise SettingError(f"The warehouse dialect '{dialect}' is not supported", hint=_HINT)


_HINT: Final = (
    "Set INSIGHT_WAREHOUSE_URL to a DuckDB file, such as duckdb:///.insight/warehouse.duckdb, "
    "or to snowflake://USER@ACCOUNT/DATABASE?warehouse=…&role=…"
)


def _reason(error: ValueError) -> str:
    """What is wrong, without the values: pydantic repeats them."""
    faults = getattr(error, "errors", None)
    if faults is None:
        return str(error)
    return "; ".join(str(fault["msg"]) for fault in faults(include_input=False, include_url=False))
