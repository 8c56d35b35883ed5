"""The settings of the service, read once from the environment (and `.env` in development)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from api.snowflake_account import SnowflakeAccount
from outgoing import InternalHosts, OutgoingUrl

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
    flight_port: int = Field(
        31337, ge=0, le=65535, description="Port of Arrow Flight SQL, on the same address; 0 turns it off."
    )
    tls_cert_file: Path | None = Field(
        None, description="Certificate chain of both ports (PEM); without one they are plain, for a proxy's sake."
    )
    tls_key_file: Path | None = Field(None, description="Private key of that certificate (PEM), without a password.")
    flight_max_streams: int = Field(
        32, ge=1, description="Answers that are read over Flight SQL at once; each holds some MB, more are refused."
    )
    publication_dir: Path = Field(
        Path(".insight/publications"),
        description="Folder of the publications and of the pointer to the current one; beside the embedded warehouse.",
    )
    warehouse_url: str = Field(
        "duckdb:///.insight/warehouse.duckdb",
        repr=False,  # it may hold a password
        description="SQLAlchemy URL of the warehouse. The service looks at Snowflake's alone; DuckDB's is for workers.",
    )
    state_url: str = Field(
        "sqlite:///.insight/state.db",
        repr=False,  # it may hold a password
        description="SQLAlchemy URL of the service's own state (keys, audit, long queries). SQLite needs no server.",
    )
    environment_id: int = Field(
        1, ge=1, description="The `environmentId` that clients of the dbt Semantic Layer send; there is one here."
    )
    auth: AuthMode = Field(
        AuthMode.REQUIRED, description="`off` lets everybody in, and is refused unless bound to loopback."
    )
    internal_hosts: InternalHosts = Field(
        (),
        description="Hosts that may be internal and unencrypted where a setting names one to be asked.",
    )
    jwt_jwks_url: OutgoingUrl | None = Field(
        None, description="Where the issuer of tokens publishes its keys. None: keys alone."
    )
    jwt_issuer: str | None = Field(None, min_length=1, description="What the claim `iss` of a token must be, exactly.")
    jwt_audience: str | None = Field(
        None, min_length=1, description="What `aud` must be or hold, so that tokens for other services are refused."
    )
    jwt_role_claim: str = Field(
        "role", min_length=1, description="The claim that names the role; a name, or a path as `realm_access.roles`."
    )
    failures_per_minute: int = Field(
        30,
        ge=1,
        description="Failed authentications of one address in a minute before it must wait: a slip, no attack.",
    )
    failures_exempt: str = Field(
        "127.0.0.0/8, ::1",
        description="Networks whose failures are not counted: this machine, and proxies that everybody comes through.",
    )
    policy_file: Path | None = Field(
        None,
        description="Roles, row filters, masks, limits; without one, the built-in roles admin, analyst and viewer.",
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis for results and counts that replicas share; without one, each process keeps its own."
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
    deferred_running: int = Field(
        2, ge=0, le=64, description="Submitted queries that run here at once; 0 leaves them to other replicas."
    )
    deferred_waiting: int = Field(1_000, ge=1, description="Submitted queries that wait in total; then 503.")
    deferred_waiting_each: int = Field(20, ge=1, description="Submitted queries of one principal that wait; then 429.")
    max_deferred_rows: int = Field(
        1_000_000, ge=1, description="Rows kept of a submitted query; they pass through memory as a whole."
    )
    deferred_timeout_s: Seconds = Field(600.0, description="Seconds a submitted query may run in the warehouse.")
    deferred_keep_h: Annotated[float, Field(gt=0, le=24 * 365)] = Field(
        24.0, description="Hours that a finished query and its rows are kept: until the next working day."
    )
    deferred_kept_mb: int = Field(
        1_000, ge=1, description="MB of rows kept of one principal in the state database; then 429."
    )
    deferred_lease_s: Annotated[float, Field(ge=1, le=3600)] = Field(
        15.0, description="Seconds without a sign of life until another replica takes a running query over."
    )
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

    @property
    def exempt_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Where failed authentications are not counted."""
        return tuple(ip_network(text.strip()) for text in self.failures_exempt.split(",") if text.strip())

    @property
    def snowflake_account(self) -> SnowflakeAccount | None:
        """The account that holds the marts, if they are on Snowflake."""
        url = make_url(self.warehouse_url)
        return SnowflakeAccount.of(url) if url.get_backend_name() == "snowflake" else None

    @field_validator("warehouse_url")
    @classmethod
    def _a_warehouse(cls, text: str) -> str:
        try:
            url = make_url(text)
        except (ArgumentError, ValueError) as error:  # their texts show the value
            raise ValueError("cannot be read as a URL") from error
        if url.get_backend_name() == "snowflake":
            SnowflakeAccount.of(url)
        return text

    @field_validator("redis_url")
    @classmethod
    def _a_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @field_validator("failures_exempt")
    @classmethod
    def _networks(cls, texts: str) -> str:
        for text in filter(None, map(str.strip, texts.split(","))):
            try:
                ip_network(text)
            except ValueError as error:
                raise ValueError("must be addresses or networks (10.0.0.0/8), separated by commas") from error
        return texts

    @model_validator(mode="after")
    def _tokens_wholly_or_not(self) -> Self:
        given = {
            "INSIGHT_JWT_JWKS_URL": self.jwt_jwks_url,
            "INSIGHT_JWT_ISSUER": self.jwt_issuer,
            "INSIGHT_JWT_AUDIENCE": self.jwt_audience,
        }
        missing = [name for name, value in given.items() if value is None]
        if missing and len(missing) < len(given):
            raise ValueError(f"{', '.join(given)} go together; not set: {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _certificate_with_its_key(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("INSIGHT_TLS_CERT_FILE and INSIGHT_TLS_KEY_FILE go together")
        return self

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
        message = str(item["msg"]).removeprefix("Value error, ")
        problems.append(f"{name}: {message}" if name else message)
    return "; ".join(problems)
