"""A service as a process of its own, both of its ports open, for clients that were made for another one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Published
from tests.server import Server
from tests.services import free_port


@pytest.fixture(scope="package")
def server(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`insight serve` over the synthetic publication, with Flight SQL."""
    folder = tmp_path_factory.mktemp("clients")
    running = Server(synthetic.settings.publication_dir, folder, flight_port=free_port())
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="package")
def key(server: Server) -> str:
    """A key of the running service."""
    return server.key("reader")
