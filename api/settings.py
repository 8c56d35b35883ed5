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
        description="SQLAlchemy URL of the service's own state (API keys). SQLite, as it needs no server.",
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
    queue_timeout_s: Seconds = Field(
        10.0, description="Seconds a query may wait for its turn; a person at a dashboard waits no longer."
    )
    queue_size: int = Field(
        128, ge=0, description="Queries that wait at most; more are refused at once, and would wait too long anyway."
    )
    queue_size_per_principal: int = Field(
        64, ge=0, description="Of these, queries of one principal; half, so that nobody fills the queue alone."
    )
    engine_memory_mb: int = Field(
        512, ge=64, description="MB the embedded engine may use: a query that needs more fails, the service does not."
    )
    engine_threads: int = Field(
        2, ge=1, le=256, description="Threads of the embedded engine; as many as small machines have."
    )
    default_rows: int = Field(10_000, ge=1, description="Rows answered when a query names no limit.")
    max_rows: int = Field(50_000, ge=1, description="Rows at most on one page; more needs an offset.")
    max_export_rows: int = Field(
        5_000_000, ge=1, description="Rows of an export at most: some GB of text, and what half an hour can carry."
    )
    export_timeout_s: Seconds = Field(
        1800.0, description="Seconds an export may take in all, the reader's time included; it holds a connection."
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Bytes of a request body at most; queries are small.")
    body_timeout_s: Seconds = Field(
        10.0, description="Seconds that a body may take to arrive: a full one at 100 KB/s, and queries are small."
    )
    send_timeout_s: Seconds = Field(
        30.0, description="Seconds that a part of an answer may go unread; whoever reads on is never cut off."
    )
    max_requests: int = Field(
        256, ge=1, description="Requests worked on at once; all that run and wait, and as many that need no warehouse."
    )
    max_connections: int = Field(
        4096, ge=16, description="Open connections; many may be idle or slow, and each costs some 20 KB."
    )
    stop_notice_s: Annotated[float, Field(ge=0, le=600)] = Field(
        2.0, description="Seconds between not being ready and taking no more connections, for a balancer to notice."
    )
    stop_grace_s: Seconds = Field(
        25.0, description="Seconds to finish what is in flight; with the notice, within the 30 s that Kubernetes gives."
    )

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
