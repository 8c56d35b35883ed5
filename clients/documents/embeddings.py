"""Vectors of texts from a server of OpenAI's embeddings, where one is set up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from clients.documents.settings import DocumentSettings
from clients.planner.llm.address import check_address
from clients.settings import LlmSettings

_BATCH = 64
_TIMEOUT_S = 30.0


class Embedder(Protocol):
    """Turns texts into vectors of one model."""

    model: str

    def embed(self, texts: Sequence[str]) -> list[list[float]] | None:
        """A vector for each text, in order; None where the server does not answer."""
        ...


def chosen_embedder(settings: DocumentSettings) -> Embedder | None:
    """The embedder that the settings name; None without one."""
    return OpenAiEmbedder(settings.embedding_model, LlmSettings()) if settings.embedding_model else None


class OpenAiEmbedder:
    """Asks the server at `OPENAI_BASE_URL`, which is held against the same rules as for the planner.

    Raises
    ------
    AddressRefused
        When used: the address leads to where it may not.
    """

    def __init__(self, model: str, settings: LlmSettings) -> None:
        self.model = model
        self._settings = settings

    def embed(self, texts: Sequence[str]) -> list[list[float]] | None:
        """A vector for each text, in order; None where the server does not answer."""
        import httpx2
        import openai

        from clients.planner.llm.errors import ModelUnreachable

        settings = self._settings
        key = settings.api_key.get_secret_value() if settings.api_key else "none"
        try:
            check_address(settings.base_url, allowed_hosts=settings.allowed_hosts)
            with (
                openai.DefaultHttpxClient(follow_redirects=False, timeout=_TIMEOUT_S) as http,
                openai.OpenAI(api_key=key, base_url=settings.base_url, max_retries=1, http_client=http) as client,
            ):
                vectors: list[list[float]] = []
                for start in range(0, len(texts), _BATCH):
                    batch = list(texts[start : start + _BATCH])
                    made = client.embeddings.create(model=self.model, input=batch, encoding_format="float")
                    vectors += [each.embedding for each in sorted(made.data, key=lambda each: each.index)]
        except (openai.OpenAIError, httpx2.HTTPError, ModelUnreachable, ValueError, TypeError, AttributeError):
            return None
        return vectors if len(vectors) == len(texts) else None
