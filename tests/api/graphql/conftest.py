"""A service as a process of its own, as dbt's clients meet it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Published
from tests.server import Server


@pytest.fixture(scope="package")
def server(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`insight serve` over the synthetic publication."""
    running = Server(synthetic.settings.publication_dir, tmp_path_factory.mktemp("graphql"))
    running.start()
    yield running
    running.kill()
