"""What several of these files stand on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog
import yaml

from api.state import open_state
from tests.api.principals import Client, Join, serving
from tests.api.served import Served, serve
from tests.api.two_years import two_years
from tests.conftest import Published, published_once, shared
from tests.services import PostgresServer, running_postgres


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What a test does to the log ends with it."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.configure(**before)
    root.handlers = handlers
    root.setLevel(level)


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


@pytest.fixture(scope="module")
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the `POLICY` of the module."""
    file: Path = tmp_path_factory.mktemp("policy") / "policy.yml"
    file.write_text(request.module.POLICY)
    return file


@pytest.fixture(scope="module")
async def join(synthetic: Published, policy: Path) -> AsyncIterator[Join]:
    """Clients of one service under the module's policy, by role."""
    async with serving(synthetic, policy, policy.with_name("state.db")) as made:
        yield made


@pytest.fixture(scope="module")
def admin(join: Join) -> Client:
    """Whoever may see everything."""
    return join("admin")


@pytest.fixture(scope="module")
async def roles(request: pytest.FixtureRequest, years: Published, policy: Path) -> AsyncIterator[Mapping[str, Served]]:
    """A client for each role of the module's policy, over two years."""
    names = yaml.safe_load(request.module.POLICY)["roles"]
    async with AsyncExitStack() as stack:
        yield {role: await serve(years, stack, role=role, policy_file=policy) for role in names}


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the module's own."""
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty state database, of either kind."""
    if request.param == "sqlite":
        engine = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    else:
        url, name = request.getfixturevalue("postgres").url, tmp_path.name.replace("-", "_").lower()
        with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.text(f"create database {name}"))
        connection.engine.dispose()
        engine = open_state(url.replace("/postgres", f"/{name}"))
    yield engine
    engine.dispose()
