"""Vectors of texts from a server of OpenAI's embeddings, where one is set up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import isfinite
from typing import Protocol

from clients.documents.settings import DocumentSettings
from clients.planner.llm.errors import ModelFailed, ModelUnreachable, ModelUnusable
from clients.planner.llm.in_time import in_time
from clients.settings import LlmSettings
from outgoing import AddressRefused

_BATCH = 64


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
        """A vector for each text, in order; None where the server does not answer, each batch in time."""
        try:
            vectors: list[list[float]] = []
            for start in range(0, max(len(texts), 1), _BATCH):  # without texts the address is checked alone
                batch = list(texts[start : start + _BATCH])
                vectors += in_time(lambda batch=batch: asyncio.run(self._made(batch)), self._settings.timeout_s)  # type: ignore[misc] # mypy infers no lambda with a default
        except ModelFailed:
            return None
        is_whole = len(vectors) == len(texts) and len({len(vector) for vector in vectors}) <= 1
        return vectors if is_whole else None

    async def _made(self, texts: list[str]) -> list[list[float]]:
        import httpx2
        import openai

        from clients.planner.llm.exchange import model_client

        try:
            async with model_client(self._settings) as client:
                if not texts:
                    return []
                made = await client.embeddings.create(model=self.model, input=texts, encoding_format="float")
                return [_vector(each.embedding) for each in sorted(made.data, key=lambda each: each.index)]
        except AddressRefused:
            raise
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise ModelUnreachable(type(error).__name__) from error
        except (ValueError, TypeError, AttributeError) as error:  # a server may answer anything; the SDK checks nothing
            raise ModelUnusable("what the server answers are no vectors") from error


def _vector(values: Sequence[float]) -> list[float]:
    """The vector; not every server sends numbers, and nothing is near to a vector of noughts."""
    vector = [float(value) for value in values]
    if not any(vector) or not all(map(isfinite, vector)):
        raise ValueError
    return vector
