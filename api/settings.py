"""The settings of the service, read once from the environment (and `.env` in development)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
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
    jwt_jwks_url: str | None = Field(
        None, description="Where the issuer of tokens publishes its keys; https, or http on loopback. None: keys alone."
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
    engine_memory_mb: int = Field(
        512, ge=64, description="MB the embedded engine may use: a query that needs more fails, the service does not."
    )
    engine_threads: int = Field(
        2, ge=1, le=256, description="Threads of the embedded engine; as many as small machines have."
    )
    default_rows: int = Field(10_000, ge=1, description="Rows answered when a query names no limit.")
    max_rows: int = Field(50_000, ge=1, description="Rows at most on one page; more needs an offset.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Bytes of a request body at most; queries are small.")

    @property
    def query_timeout(self) -> timedelta:
        """How long a query may run in the warehouse."""
        return timedelta(seconds=self.query_timeout_s)

    @property
    def exempt_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Where failed authentications are not counted."""
        return tuple(ip_network(text.strip()) for text in self.failures_exempt.split(",") if text.strip())

    @field_validator("jwt_jwks_url")
    @classmethod
    def _only_a_safe_place(cls, url: str | None) -> str | None:
        if url is None:
            return url
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:  # its text shows the value
            raise ValueError("cannot be read as a URL") from error
        is_safe = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
        if not is_safe or not host or "@" in parts.netloc:
            raise ValueError("must be an https URL without a user, or http on loopback")
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
