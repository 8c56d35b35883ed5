"""One stage for all tests of the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Published
from tests.contract.provoked import Stage, provoke, staged
from tests.contract.served import Contract


@pytest.fixture(scope="session")
async def stage(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """The service over the synthetic publication, with its callers."""
    async with staged(synthetic.settings.publication_dir, tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture
async def fresh_stage(synthetic: Published, tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage that nobody has asked anything yet."""
    async with staged(synthetic.settings.publication_dir, tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def contract(stage: Stage) -> Contract:
    """The description that the service serves."""
    return Contract(stage.app.openapi())


@pytest.fixture(scope="session")
async def provoked(contract: Contract, stage: Stage) -> dict[str, list[httpx.Response]]:
    """What every operation answers, asked in every way."""
    return await provoke(contract, stage)
