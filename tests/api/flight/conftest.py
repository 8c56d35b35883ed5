"""A service with its Flight port, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.api.flight.flown import Flown, fly
from tests.conftest import Published


@pytest.fixture(scope="session")
async def flown(synthetic: Published) -> AsyncIterator[Flown]:
    """The service over the synthetic publication, and a key of an admin."""
    async with AsyncExitStack() as stack:
        yield await fly(synthetic, stack)
