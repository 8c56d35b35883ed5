"""The settings of the clients, read from the environment."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from outgoing import InternalHosts

Seconds = Annotated[float, Field(gt=0, le=600)]


class LlmReplies(StrEnum):
    """How a model is asked for structured replies."""

    TOOLS = "tools"
    JSON = "json"


class LlmSettings(BaseSettings):
    """How to reach a language model; without a model's name there is none."""

    model_config = SettingsConfigDict(env_prefix="INSIGHT_LLM_", extra="ignore", frozen=True, str_strip_whitespace=True)

    api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY", description="Key of the model's server.")
    base_url: str = Field(
        "https://api.openai.com/v1",
        alias="OPENAI_BASE_URL",
        description="Where a server of OpenAI's chat completions answers.",
    )
    model: str | None = Field(None, description="Name of the model; without one, questions are planned without it.")
    replies: LlmReplies = Field(
        LlmReplies.TOOLS, description="Whether it calls tools, or writes JSON, which more servers can."
    )
    timeout_s: Seconds = Field(20.0, description="For one plan, all its rounds; then it is made without the model.")
    max_tokens: int = Field(
        100_000,
        ge=1_000,
        description="Tokens of one plan, prompts and replies of all rounds; 44 metrics take 9,000 a round.",
    )
    internal_hosts: InternalHosts = Field(
        (),
        alias="INSIGHT_INTERNAL_HOSTS",
        description="Hosts that may be internal and unencrypted, such as 127.0.0.1, separated by commas.",
    )

    @property
    def is_set_up(self) -> bool:
        """Whether there is a model to ask."""
        return self.model is not None
