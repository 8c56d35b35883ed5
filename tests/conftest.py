"""What every test may stand on: real data if it is there, synthetic data always, each published once a session."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx
import pytest
import structlog
from fastapi import FastAPI
from filelock import FileLock

from api.keys import ApiKeys
from api.main import create_app
from api.settings import Settings
from api.state import open_state
from clients.cli import collect_rarely
from tests.contract.served import Contract
from tests.snowflake import snowflake  # noqa: F401 - a fixture of all tests
from tests.snowpipe import snowpipe, snowpipe_of_session  # noqa: F401 - likewise
from workers.generate import generate
from workers.locations import DuckDbFile, read_location
from workers.pipeline import Pipeline, Watcher
from workers.settings import WorkerSettings
from workers.transform import BuildResult

REPOSITORY = Path(__file__).parent.parent
REAL_DATA = REPOSITORY.parent / "shared" / "data" / "ecommerce"

# What takes minutes: dbt builds, processes that die, brokers and browsers, thousands of drawn requests, commands that
# each start a Python. `make test` leaves it to `make test-slow`; CI runs both. Whole files go to the test processes in
# this order, the longest first.
SLOW = (
    "dbt/test_builds.py",
    "workers/test_pipeline.py",
    "deploy/test_image.py",
    "contract/test_schemathesis.py",
    "workers/test_refresh.py",
    "workers/test_segments.py",
    "workers/test_snowpipe.py",
    "api/clients/",
    "clients/documents/test_hostile_files.py",
    "clients/test_export.py",
    "test_cli.py",
    "api/test_publication.py",
    "api/test_deferred.py",
    "api/test_hostile_values.py",
    "api/test_caching.py",
    "metrics/",
    "contract/",
    "clients/chatbot/test_conversations.py",
    "clients/chatbot/test_answers.py",
    "clients/report/test_report.py",
    "clients/test_sdk.py",
    "clients/test_plan_command.py",
    "clients/test_llm_planner.py",
    "clients/test_mcp.py",
    "api/graphql/test_console.py",
    "api/test_audited_requests.py",
    "api/test_secrets.py",
    "api/test_tracing.py",
    "api/test_snowflake_engine.py",
    "api/graphql/test_hostile_documents.py",
    "api/test_hostile_names.py",
    "api/test_bad_input.py",
    "api/test_filter_safety.py",
    "api/test_row_filters.py",
    "api/test_rehearsal.py",
    "api/test_deferred_store.py",
    "api/graphql/test_schemathesis.py",
    "workers/test_webhooks.py",
    "workers/test_sources.py",
    "workers/test_account.py",
    "workers/test_retention.py",
    "workers/test_sinks.py",
    "workers/test_snowflake_only.py",
    "clients/documents/test_models.py",
    "ml/test_card.py",
    "ml/test_cli.py",
    "ml/test_outlook.py",
    "ml/test_registry.py",
    "property/",
    "dbt/",
    "faults/",
    "e2e/",
)
LONGEST_FILES = (
    "api/test_comparison.py",  # first, as others wait for the two years that it builds
    *SLOW,
    "workers/test_publish.py",
    "workers/test_ingest.py",
    "api/test_policy.py",
)
# So does whatever needs one of these: a data set that is published for it besides the synthetic one of all tests, or
# the emulated Snowflake.
_DEAR = frozenset({"real", "one", "years", "two", "snowflake"})

SILENT = Watcher(loading=lambda _: None, loaded=lambda _: None, building=lambda _: None, built=lambda _: None)


def pytest_configure() -> None:
    """Before the tests are imported."""
    collect_rarely()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what `make test` leaves out: that takes each test process half a minute."""
    is_slow = str(collection_path).removeprefix(f"{REPOSITORY / 'tests'}/").startswith(SLOW)
    return True if is_slow and "not slow" in config.option.markexpr else None


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and begin with the longest files: one that begins last would keep a single process busy."""

    def path(item: pytest.Item) -> str:
        return item.path.relative_to(REPOSITORY / "tests").as_posix()

    def rank(item: pytest.Item) -> int:
        named = (place for place, name in enumerate(LONGEST_FILES) if path(item).startswith(name))
        return next(named, len(LONGEST_FILES))

    for item in items:
        if path(item).startswith(SLOW) or _DEAR & _needs(item):
            item.add_marker(pytest.mark.slow)
    items.sort(key=rank)


def _needs(item: pytest.Item) -> set[object]:
    """The fixtures that the test stands on, and those that its parameters name."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    named = {value for value in parameters.values() if isinstance(value, str)}
    return {*getattr(item, "fixturenames", ()), *named}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have scored and counted: that they passed says little."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name in ("score", "counts"):
                terminalreporter.write_sep("-", report.nodeid)
                terminalreporter.write_line(str(value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A data folder, taken through the whole pipeline."""

    data: Path
    settings: WorkerSettings
    version: str

    @property
    def warehouse(self) -> Path:
        """The build database, raw tables and all."""
        return Path(self.settings.warehouse_url.removeprefix("duckdb:///"))

    @property
    def built(self) -> BuildResult:
        """What a build leaves that passed one test."""
        return BuildResult(target=self.warehouse.parent / "dbt-target", tests={"test.one": "pass"}, warnings=())

    @property
    def segments(self) -> Path:
        """The seed with the customers' segments, as the pipeline wrote it."""
        return (
            self.settings.publication_dir.with_name("dbt-target")
            / "project"
            / "dbt"
            / "seeds"
            / "customer_segments.csv"
        )


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the test processes makes and all of them use; nobody may change what is in it."""
    # Without workers the folder above belongs to all sessions, and would outlive a change of the project.
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    folder = (factory.getbasetemp().parent if is_worker else factory.getbasetemp()) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            _make_or_copy(folder, make)
            (folder / "made").touch()
    return folder


def _make_or_copy(folder: Path, make: Callable[[Path], object]) -> None:
    """Make the folder; where KEEP_BUILDS names one, take the copy that an earlier session left there."""
    if (kept := os.environ.get("KEEP_BUILDS")) is None:
        folder.mkdir(exist_ok=True)
        make(folder)
        return
    copy = Path(kept) / _fingerprint() / folder.name
    if not (copy / "made").exists():
        copy.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{copy}.lock"):
            if not (copy / "made").exists():
                make(copy)
                (copy / "made").touch()
    shutil.copytree(copy, folder, dirs_exist_ok=True)


@cache
def _fingerprint() -> str:
    """A name for everything that decides how a build turns out."""
    files = [REPOSITORY / "requirements.lock", Path(__file__)]
    for root in ("dbt", "semantic_models", "workers", "ml"):
        files += [
            file for file in (REPOSITORY / root).rglob("*") if file.suffix in {".py", ".sql", ".yml", ".csv", ".md"}
        ]
    hashed = hashlib.sha256()
    for file in sorted(file for file in files if not {"target", "logs"} & set(file.relative_to(REPOSITORY).parts)):
        hashed.update(f"{file.relative_to(REPOSITORY)}\0".encode() + file.read_bytes())
    return hashed.hexdigest()[:16]


def generated(out: Path) -> Path:
    """The synthetic data of all tests, in a folder under `out`."""
    generate(out / "data", scale=0.2, seed=7)
    return out / "data"


def publish(data: Path, home: Path, **settings: object) -> Published:
    """Run the pipeline over the data, with everything it writes under `home`."""
    worker = worker_settings(home, **{"segments": True} | settings)
    return Published(data=data, settings=worker, version=Pipeline(worker).run(data, SILENT))


def published_once(data: Path, factory: pytest.TempPathFactory, name: str) -> Published:
    """The data, published by one of the test processes for all of them."""
    home = shared(factory, name, lambda folder: publish(data, folder / "home")) / "home"
    worker = worker_settings(home)
    version = Pipeline(worker).store.current()
    assert version is not None
    return Published(data=data, settings=worker, version=version)


def worker_settings(home: Path, **settings: object) -> WorkerSettings:
    """Settings that keep everything the workers write under `home`."""
    return WorkerSettings(
        _env_file=None,
        warehouse_url=f"duckdb:///{home / 'warehouse.duckdb'}",
        publication_dir=home / "publications",
        **{"segments": False} | settings,  # they take some seconds of each run
    )


def warehouse_file(settings: WorkerSettings) -> Path:
    """The file behind the embedded warehouse's URL."""
    location = read_location(settings.warehouse_url)
    assert isinstance(location, DuckDbFile)
    return location.path


@pytest.fixture(scope="session", autouse=True)
def _only_faults_are_logged() -> None:
    """A line for each of some hundred thousand requests would be kept in memory until its test ends."""

    def faults_only(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method in ("debug", "info"):
            raise structlog.DropEvent
        return event

    structlog.configure(processors=[faults_only, structlog.dev.ConsoleRenderer(colors=False)])


@pytest.fixture(scope="session", autouse=True)
def _no_search_for_cycles_with_each_publication() -> Iterator[None]:
    """To go through all tests and modules takes half a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.publication._settle_memory", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """The developer's own environment must not decide a test."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("INSIGHT_")}
    os.environ["INSIGHT_FLIGHT_PORT"] = "0"  # many services run at once; a test that needs the port names a free one
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session")
def synthetic_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of synthetic CSV files, a fifth of the real size."""
    return shared(tmp_path_factory, "synthetic-data", generated) / "data"


@pytest.fixture(scope="session")
def synthetic(synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The synthetic data, published."""
    return published_once(synthetic_data, tmp_path_factory, "synthetic")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real CSV files; skips where it is absent."""
    if not (REAL_DATA / "Online_Sales.csv").is_file():
        pytest.skip(f"the real data is not at {REAL_DATA.relative_to(REPOSITORY.parent)}")
    return REAL_DATA


@pytest.fixture(scope="session")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The real data, published."""
    return published_once(real_data, tmp_path_factory, "real")


def service_settings(published: Published, **settings: object) -> Settings:
    """The settings of a service over the publication, with a state database beside it."""
    worker = published.settings
    given = {
        "publication_dir": worker.publication_dir,
        "warehouse_url": worker.warehouse_url,
        "state_url": f"sqlite:///{worker.publication_dir.with_name('state.db')}",
    }
    return Settings(_env_file=None, **(given | settings))


@pytest.fixture(scope="session")
async def service(synthetic: Published) -> AsyncIterator[FastAPI]:
    """The service over the synthetic publication."""
    app = create_app(service_settings(synthetic))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="session")
def key(synthetic: Published) -> str:
    """A key of the service over the synthetic publication."""
    state = open_state(service_settings(synthetic).state_url)
    made = ApiKeys(state).create("tests", role="admin")
    state.dispose()
    return made


@pytest.fixture(scope="session")
async def api(service: FastAPI, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service, with a key."""
    async with connect(service, key=key) as client:
        yield client


class HeldTransport(httpx.ASGITransport):
    """To an application in this process; whatever it answers has to be as the contract says."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer; fails where the description of the operation does not have it."""
        response = await super().handle_async_request(request)
        response.request = request
        await response.aread()
        served_contract().hold(response)
        return response


@cache
def served_contract() -> Contract:
    """What the service says of itself, whatever its settings."""
    return Contract(create_app(Settings(_env_file=None)).openapi())


def connect(app: FastAPI, *, key: str | None = None) -> httpx.AsyncClient:
    """A client of the application in this process; a crash in it is a 500, as over the network."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    transport = HeldTransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://insight.test", headers=headers)
