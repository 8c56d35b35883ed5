"""The settings of the chatbot, read from the environment."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ChatSettings(BaseSettings):
    """Where the chatbot listens and what it keeps."""

    model_config = SettingsConfigDict(env_prefix="INSIGHT_CHAT_", extra="ignore", frozen=True)

    host: str = Field(
        "127.0.0.1", description="Address to listen on; loopback, so that nothing is exposed by accident."
    )
    port: int = Field(8501, ge=1, le=65_535, description="Port to listen on.")
    folder: Path = Field(Path(".insight/chat"), description="Conversations and documents, a folder for each user.")

    @property
    def is_private(self) -> bool:
        """Whether only this machine can reach it; the key of the environment is used only then."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
