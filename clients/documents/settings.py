"""The settings of the document mode, read from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DocumentSettings(BaseSettings):
    """What may be uploaded, and how it is searched."""

    model_config = SettingsConfigDict(env_prefix="INSIGHT_DOCUMENTS_", extra="ignore", frozen=True)

    max_mb: int = Field(20, ge=1, le=200, description="MB of a PDF at most.")
    max_pages: int = Field(500, ge=1, le=5_000, description="Pages of a PDF at most.")
    max_count: int = Field(50, ge=1, le=1_000, description="Documents of one user at most.")
    timeout_s: float = Field(9.0, gt=0, le=60, description="Seconds that reading one may take.")
    memory_mb: int = Field(512, ge=128, le=4_096, description="MB of memory that reading one may take.")
    embedding_model: str | None = Field(None, description="Model of embeddings; without one, search is by words alone.")
    min_similarity: float = Field(
        0.45, ge=0, le=1, description="Cosine from which a passage counts as an answer though it has other words."
    )
