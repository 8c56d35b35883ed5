"""The settings of the service, read once from the environment (and `.env` in development)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=3600)]


class AuthMode(StrEnum):
    """Whether a caller must show a credential."""

    REQUIRED = "required"
    OFF = "off"


class AuditMode(StrEnum):
    """Whether a request is answered when its audit record cannot be written."""

    REQUIRED = "required"
    BEST_EFFORT = "best_effort"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


class Settings(BaseSettings):
    """What the service needs to know before it starts; a wrong value stops the start with one clear line."""

    model_config = SettingsConfigDict(
        env_prefix="INSIGHT_", env_file=".env", extra="ignore", frozen=True, str_strip_whitespace=True
    )

    host: str = Field(
        "127.0.0.1", description="Address to listen on. Loopback, so that nothing is exposed by accident."
    )
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    publication_dir: Path = Field(
        Path(".insight/publications"),
        description="Folder of the publications and of the pointer to the current one; beside the embedded warehouse.",
    )
    state_url: str = Field(
        "sqlite:///.insight/state.db",
        repr=False,  # it may hold a password
        description="SQLAlchemy URL of the service's own state (keys, audit). SQLite, as it needs no server.",
    )
    auth: AuthMode = Field(
        AuthMode.REQUIRED, description="`off` lets everybody in, and is refused unless bound to loopback."
    )
    policy_file: Path | None = Field(
        None, description="Roles, row filters, masks; without one, the built-in roles admin, analyst and viewer."
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis for results that replicas share; without one, each process keeps its own."
    )
    cache_memory_mb: int = Field(64, ge=1, description="MB of results kept in the process: some thousand answers.")
    cache_keep_s: Annotated[float, Field(gt=0)] = Field(
        3600.0, description="Seconds that Redis keeps a result; never stale, as its key names the publication."
    )
    publication_poll_s: Seconds = Field(
        0.5, description="Seconds between looks at the pointer: a new publication must answer within 2 s."
    )
    query_timeout_s: Seconds = Field(30.0, description="Seconds a query may run in the warehouse before it is stopped.")
    pool_size: int = Field(
        8,
        ge=1,
        le=256,
        description="Warehouse connections, so queries that run at once; the embedded engine has 2 cores.",
    )
    engine_memory_mb: int = Field(
        512, ge=64, description="MB the embedded engine may use: a query that needs more fails, the service does not."
    )
    engine_threads: int = Field(
        2, ge=1, le=256, description="Threads of the embedded engine; as many as small machines have."
    )
    default_rows: int = Field(10_000, ge=1, description="Rows answered when a query names no limit.")
    max_rows: int = Field(50_000, ge=1, description="Rows at most on one page; more needs an offset.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Bytes of a request body at most; queries are small.")
    audit: AuditMode = Field(
        AuditMode.REQUIRED,
        description="`best_effort` answers even when the record of a request cannot be written (full disk).",
    )
    audit_dir: Path | None = Field(
        None, description="Folder of the audit's journals; without one, beside the SQLite state, or .insight/audit."
    )
    audit_keep_days: int = Field(
        90, ge=1, description="Days that the state database keeps an audit record, of some 1 KB: a quarter."
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="The least that is logged; debug adds probes and libraries.")

    @property
    def query_timeout(self) -> timedelta:
        """How long a query may run in the warehouse."""
        return timedelta(seconds=self.query_timeout_s)

    @model_validator(mode="after")
    def _open_only_on_loopback(self) -> Self:
        if self.auth is AuthMode.OFF and not _is_loopback(self.host):
            msg = f"INSIGHT_AUTH=off is allowed on loopback only, not on {self.host}; set INSIGHT_AUTH=required"
            raise ValueError(msg)
        return self


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def explain(error: ValidationError) -> str:
    """One line that names each wrong setting by its environment variable, without its value (it may be a secret)."""
    problems = []
    for item in error.errors(include_input=False, include_url=False):
        name = "INSIGHT_" + "_".join(str(part) for part in item["loc"]).upper() if item["loc"] else ""
        problems.append(f"{name}: {item['msg']}" if name else str(item["msg"]).removeprefix("Value error, "))
    return "; ".join(problems)
