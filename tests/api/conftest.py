"""What several of these files stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.api.served import Served, serve
from tests.api.two_years import two_years
from tests.conftest import Published, published_once, shared


@pytest.fixture(scope="session")
def years(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Two years of synthetic sales, published."""
    data = shared(tmp_path_factory, "two-years-data", two_years) / "data"
    return published_once(data, tmp_path_factory, "two-years")


@pytest.fixture(scope="session")
async def two(years: Published) -> AsyncIterator[Served]:
    """The service over two years."""
    async with AsyncExitStack() as stack:
        yield await serve(years, stack)


@pytest.fixture(scope="session")
async def one(real: Published) -> AsyncIterator[Served]:
    """The service over the one real year; skips where the data are absent."""
    async with AsyncExitStack() as stack:
        yield await serve(real, stack)
