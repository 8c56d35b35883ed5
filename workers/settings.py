"""The settings of the workers, read once from the environment (and `.env` in development)."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from workers.errors import SettingError

_Settings = TypeVar("_Settings", bound=BaseSettings)

_PROJECT = Path(__file__).resolve().parent.parent


class WorkerSettings(BaseSettings):
    """What the workers need to know before they start."""

    model_config = SettingsConfigDict(
        env_prefix="INSIGHT_", env_file=".env", extra="ignore", frozen=True, str_strip_whitespace=True
    )

    warehouse_url: str = Field(
        "duckdb:///.insight/warehouse.duckdb",
        repr=False,  # it may hold a password
        description="SQLAlchemy URL of the warehouse that is written. DuckDB, as it needs no server.",
    )
    publication_dir: Path = Field(
        Path(".insight/publications"), description="Folder of the publications; the service reads the same."
    )
    keep_publications: int = Field(
        5, ge=2, description="Publications kept, the current one among them: enough to go back over a working week."
    )
    segments: bool = Field(
        default=True, description="Whether to put customers into segments; off saves some seconds of each run."
    )
    model_dir: Path | None = Field(
        None, description="Folder of the models that do it; without one, `models` beside the publications."
    )
    as_of: date | None = Field(
        None, description="The day that everything relative is relative to; the last date of the sales, if left out."
    )
    keep_rejected_days: int = Field(
        90, ge=1, description="Days that rejected records are kept from their loading: a quarter to mend a source in."
    )
    keep_superseded_days: int = Field(
        30,
        ge=1,
        description="Days that a raw row is kept after another has replaced it: a month to notice a wrong correction.",
    )
    dbt_project_dir: Path = Field(_PROJECT / "dbt", description="Folder of the dbt project; beside this package.")


class AccountSettings(BaseSettings):
    """What setting up a Snowflake account needs to know; no other command reads an administrator's credentials."""

    model_config = SettingsConfigDict(
        env_prefix="INSIGHT_", env_file=".env", extra="ignore", frozen=True, str_strip_whitespace=True
    )

    snowflake_admin_url: SecretStr | None = Field(
        None, description="SQLAlchemy URL of a user with ACCOUNTADMIN; best one that signs in by browser."
    )


def read_settings() -> WorkerSettings:
    """The settings of this process; raises as `read` does."""
    return read(WorkerSettings)


def read(kind: type[_Settings]) -> _Settings:
    """Settings of the kind, from the environment.

    Raises
    ------
    SettingError
        A value is wrong; the message names its variable.
    """
    try:
        return kind()
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        text = "; ".join(f"INSIGHT_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in faults)
        raise SettingError(text, hint="See docs/configuration.md") from None  # the cause would show the values
