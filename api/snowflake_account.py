"""A Snowflake account as INSIGHT_WAREHOUSE_URL names it: signing in and what every session of ours has in common.

    snowflake://USER[:PASSWORD]@ACCOUNT/DATABASE[/SCHEMA]?warehouse=…&role=…

A key pair or an OAuth token comes from settings of its own, as a URL is copied into too many places. The connector is
imported when somebody connects: it is an extra, and takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_SESSION: Final = {
    # What is stored has no zone and means UTC; a week begins on Monday, whatever the account's own settings are.
    "TIMEZONE": "UTC",
    "TIMESTAMP_TYPE_MAPPING": "TIMESTAMP_NTZ",
    "WEEK_START": 1,
    "QUERY_TAG": "marketing_insight",
    "CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED": False,
}
_LOGIN: Final = timedelta(seconds=30)


class SnowflakeSettings(BaseSettings):
    """How to sign in, where it is not by the password in the URL."""

    model_config = SettingsConfigDict(
        env_prefix="INSIGHT_SNOWFLAKE_", env_file=".env", extra="ignore", frozen=True, str_strip_whitespace=True
    )

    private_key_file: Path | None = Field(None, description="Private key of a key pair (PEM); its user is the URL's.")
    private_key_passphrase: SecretStr | None = Field(None, description="What opens that key, if it is encrypted.")
    token_file: Path | None = Field(
        None, description="File of an OAuth access token; read at every sign-in, so that it may be replaced."
    )

    streaming_url: str | None = Field(
        None,
        description="Where Snowpipe Streaming is, https://ORG-ACCOUNT.snowflakecomputing.com: events go through it; "
        "without, through the stage, in transactions. It signs in by a key pair alone.",
    )

    @field_validator("streaming_url")
    @classmethod
    def _check_streaming_url(cls, url: str | None) -> str | None:
        parsed = urlsplit(url or "https://none")
        if parsed.scheme != "https" or not parsed.hostname or parsed.username or parsed.path.strip("/"):
            raise ValueError("STREAMING_URL should be an https URL of a host alone")
        return url

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        if self.private_key_file and self.token_file:
            raise ValueError("name one of PRIVATE_KEY_FILE and TOKEN_FILE")
        if self.private_key_passphrase and not self.private_key_file:
            raise ValueError("PRIVATE_KEY_PASSPHRASE goes with PRIVATE_KEY_FILE")
        if self.streaming_url and not self.private_key_file:
            raise ValueError("STREAMING_URL needs PRIVATE_KEY_FILE")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class SnowflakeAccount:
    """Where to sign in, and how."""

    url: sa.URL
    settings: SnowflakeSettings

    @classmethod
    def of(cls, url: sa.URL) -> Self:
        """The account of a URL, with the settings of the environment.

        Raises
        ------
        ValueError
            A part of the URL is missing or unsafe, or the settings contradict each other; the text holds no value.
        """
        if not (url.host and url.username and url.database):
            raise ValueError("the URL has to name user, account and database: snowflake://USER@ACCOUNT/DATABASE")
        if url.query.get("protocol", "https") != "https" and not _is_loopback(url.host):
            raise ValueError("another protocol than https is for an emulator on this machine alone")
        return cls(url=url, settings=SnowflakeSettings())

    @property
    def database(self) -> str:
        """The database, in which every schema of ours lies."""
        return str(self.url.database).partition("/")[0]

    def engine(
        self,
        *,
        longest: timedelta,
        autocommit: bool,
        session: Mapping[str, str | int],
        **pool: Any,  # noqa: ANN401 - of SQLAlchemy
    ) -> sa.Engine:
        """An engine whose sessions bind values in the warehouse, never in the text; nothing is opened yet.

        Parameters
        ----------
        longest
            After this a request that gets no answer is given up.
        session
            Parameters of each session, besides those that all of them have.
        pool
            What SQLAlchemy has to know of its pool.
        """
        arguments = self._defaults(longest) | self._credentials()
        arguments["session_parameters"] = _SESSION | dict(session)
        engine = sa.create_engine(
            self.url.difference_update_query(["protocol"]),
            paramstyle="qmark",
            connect_args=arguments,
            # By the dialect's own word: what the connector is told of it, the dialect takes back.
            isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED",
            **pool,
        )
        if self.settings.token_file is not None:
            sa.event.listen(engine, "do_connect", self._with_token)
        return engine

    def dbt_environment(self) -> Mapping[str, str]:
        """What the profile `snowflake` of the dbt project reads."""
        url, settings, query = self.url, self.settings, self.url.query
        # As the dialect does: a host without a port is the account's name.
        own_host = {"SNOWFLAKE_HOST": str(url.host), "SNOWFLAKE_PORT": str(url.port)} if url.port else {}
        found = {
            "SNOWFLAKE_ACCOUNT": query.get("account") or url.host,
            "SNOWFLAKE_PROTOCOL": query.get("protocol", "https"),
            "SNOWFLAKE_USER": url.username,
            "SNOWFLAKE_PASSWORD": url.password,
            "SNOWFLAKE_DATABASE": self.database,
            "SNOWFLAKE_SCHEMA": str(url.database).partition("/")[2] or None,
            "SNOWFLAKE_WAREHOUSE": query.get("warehouse"),
            "SNOWFLAKE_ROLE": query.get("role"),
            "SNOWFLAKE_PRIVATE_KEY_PATH": settings.private_key_file and str(settings.private_key_file),
            "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": _revealed(settings.private_key_passphrase),
        }
        if settings.token_file is not None:
            found |= {"SNOWFLAKE_AUTHENTICATOR": "oauth", "SNOWFLAKE_TOKEN": self._token(settings.token_file)}
        return {name: str(value) for name, value in (found | own_host).items() if value}

    def streaming_properties(self) -> Mapping[str, str]:
        """What the SDK of Snowpipe Streaming wants to know of the account."""
        settings, query = self.settings, self.url.query
        where = urlsplit(str(settings.streaming_url))
        found = {
            "account": query.get("account") or self.url.host,
            "user": self.url.username,
            "role": query.get("role"),
            "url": settings.streaming_url,
            "scheme": where.scheme,
            "host": where.hostname,
            "port": where.port or 443,
            "private_key_file": settings.private_key_file,
            "private_key_passphrase": _revealed(settings.private_key_passphrase),
        }
        return {name: str(value) for name, value in found.items() if value}

    def _defaults(self, longest: timedelta) -> dict[str, Any]:
        own: dict[str, Any] = {
            "login_timeout": int(_LOGIN.total_seconds()),
            "network_timeout": int(longest.total_seconds()),
            "protocol": self.url.query.get("protocol", "https"),
        }
        return {name: value for name, value in own.items() if name == "protocol" or name not in self.url.query} | {
            "paramstyle": "qmark",
            "arrow_number_to_decimal": True,  # else money comes as float
            "client_session_keep_alive": True,  # a pool's session outlives four idle hours
            "validate_default_parameters": True,  # a wrong warehouse or role is refused at sign-in, not at each query
        }

    def _credentials(self) -> dict[str, Any]:
        settings = self.settings
        if settings.private_key_file is not None:
            key: dict[str, Any] = {"authenticator": "SNOWFLAKE_JWT", "private_key_file": str(settings.private_key_file)}
            passphrase = _revealed(settings.private_key_passphrase)
            return key | ({"private_key_file_pwd": passphrase} if passphrase else {})
        return {"authenticator": "oauth"} if settings.token_file is not None else {}

    def _with_token(self, _: object, __: object, ___: object, arguments: dict[str, Any]) -> None:
        if self.settings.token_file is not None:
            arguments["token"] = self._token(self.settings.token_file)

    @staticmethod
    def _token(file: Path) -> str:
        return file.read_text(encoding="utf-8").strip()


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
