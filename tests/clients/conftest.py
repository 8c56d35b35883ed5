"""One served publication for all tests of the clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clients.planner import Snapshot, take_snapshot
from clients.sdk import Client
from tests.clients.chatbot.identity import IdentityProvider
from tests.conftest import Published
from tests.server import Server

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  chicago:
    metrics: ["*"]
    dimensions: ["*"]
    hidden: [customer__gender]
    rows: [{field: customer__location, op: eq, values: [Chicago]}]
  hasty:
    metrics: ["*"]
    dimensions: ["*"]
    requests_per_minute: 1
  narrow:
    metrics: [total_revenue, units_sold]
    dimensions: [metric_time, product__category]
"""


@pytest.fixture(scope="session")
def provider() -> Iterator[IdentityProvider]:
    """Who signs people in."""
    with IdentityProvider().serving() as provider:
        yield provider


@pytest.fixture(scope="session")
def running(
    synthetic: Published, provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The service over the synthetic publication, as a process of its own, with roles that see all or only a part."""
    folder = tmp_path_factory.mktemp("running")
    (folder / "policy.yml").write_text(POLICY)
    server = Server(
        synthetic.settings.publication_dir, folder, policy_file=folder / "policy.yml", **provider.service_settings
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def running_key(running: Server) -> str:
    """A key of it that may do everything."""
    return running.key("clients")


@pytest.fixture
def client(running: Server, running_key: str) -> Iterator[Client]:
    """The SDK's client of it."""
    with Client(running.url, key=running_key) as made:
        yield made


@pytest.fixture(scope="session")
def snapshot(running: Server, running_key: str) -> Snapshot:
    """What a planner knows of it, with all rights."""
    with Client(running.url, key=running_key) as client:
        return take_snapshot(client)
