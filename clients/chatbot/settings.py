"""The settings of the chatbot, read from the environment."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from outgoing import InternalHosts, OutgoingUrl


class ChatSettings(BaseSettings):
    """Where the chatbot listens and what it keeps."""

    model_config = SettingsConfigDict(env_prefix="INSIGHT_CHAT_", extra="ignore", frozen=True)

    host: str = Field(
        "127.0.0.1", description="Address to listen on; loopback, so that nothing is exposed by accident."
    )
    port: int = Field(8501, ge=1, le=65_535, description="Port to listen on.")
    folder: Path = Field(Path(".insight/chat"), description="Conversations and documents, a folder for each user.")

    internal_hosts: InternalHosts = Field(
        (),
        alias="INSIGHT_INTERNAL_HOSTS",
        description="Hosts that may be internal and unencrypted where the issuer names them.",
    )
    oidc_metadata_url: OutgoingUrl | None = Field(
        None, description="Discovery document of who signs people in (…/.well-known/openid-configuration)."
    )
    oidc_client_id: str | None = Field(None, min_length=1, description="As the chatbot is registered there.")
    oidc_client_secret: SecretStr | None = Field(None, description="Its secret there.")
    oidc_redirect_url: str | None = Field(
        None, description="Where people come back to: the chatbot's own address and /oauth2callback."
    )
    oidc_cookie_secret: SecretStr | None = Field(
        None, min_length=32, description="Signs the cookie of who is signed in; long and random."
    )
    oidc_scope: str = Field("openid profile", description="What is asked for; some issuers name the service here.")
    oidc_token: Literal["access", "id"] = Field(
        "access", description="The token that is sent to the service; `id` where access tokens are no JWTs."
    )

    @field_validator("oidc_redirect_url")
    @classmethod
    def _back_over_https(cls, url: str | None) -> str | None:
        if url is not None and not _is_safe(url):
            raise ValueError("must be an https URL without a user, or http on loopback")
        return url

    @model_validator(mode="after")
    def _all_or_nothing(self) -> ChatSettings:
        given = [
            self.oidc_metadata_url,
            self.oidc_client_id,
            self.oidc_client_secret,
            self.oidc_redirect_url,
            self.oidc_cookie_secret,
        ]
        if any(given) and not all(given):
            raise ValueError(
                "INSIGHT_CHAT_OIDC_METADATA_URL, _CLIENT_ID, _CLIENT_SECRET, _REDIRECT_URL, _COOKIE_SECRET go together"
            )
        if self.oidc_redirect_url is not None and not self.oidc_redirect_url.endswith("/oauth2callback"):
            raise ValueError("INSIGHT_CHAT_OIDC_REDIRECT_URL must end in /oauth2callback")
        return self

    @property
    def has_issuer(self) -> bool:
        """Whether somebody signs people in."""
        return self.oidc_metadata_url is not None

    @property
    def sign_in_secrets(self) -> dict[str, dict[str, Any]]:
        """What Streamlit's sign-in goes by; nothing without an issuer."""
        if not (self.oidc_client_secret and self.oidc_cookie_secret):
            return {}
        return {
            "auth": {
                "redirect_uri": self.oidc_redirect_url,
                "cookie_secret": self.oidc_cookie_secret.get_secret_value(),
                "client_id": self.oidc_client_id,
                "client_secret": self.oidc_client_secret.get_secret_value(),
                "server_metadata_url": self.oidc_metadata_url,
                "client_kwargs": {"scope": self.oidc_scope},
                "expose_tokens": [self.oidc_token],
            }
        }

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it; the key of the environment is used only then."""
        return _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_safe(url: str) -> bool:
    """Whether nobody between can read or change what is sent there."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    is_closed = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    return is_closed and bool(host) and "@" not in parts.netloc
