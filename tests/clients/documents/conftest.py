"""Libraries over documents that tests make, and over the sample documents where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.documents.library import Library
from tests.conftest import REPOSITORY

SAMPLES = REPOSITORY.parent / "shared" / "data" / "documents"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """An empty library, searched by words."""
    return Library(tmp_path / "library")


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample documents; skips where it is absent."""
    if not SAMPLES.is_dir():
        pytest.skip(f"the sample documents are not at {SAMPLES.relative_to(REPOSITORY.parent)}")
    return SAMPLES
