"""The service as a process of its own, over publications that are slow, hungry or large where a test wants it.

Import the fixture where it is used: `serve = server.serve`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import httpx
import pytest

from api.keys import ApiKeys
from api.state import open_state
from tests.conftest import Published
from tests.services import free_port

_INSIGHT = Path(sys.executable).with_name("insight")

# Ready in 2 s; a busy machine gets thirty times that.
_START_S = 60.0

# What stands in for the sales, over the table `whole`. The service sees only a table's name, as it is a view.
RUNAWAY = "SELECT * FROM whole WHERE (SELECT count(*) FROM range(1000000000000) AS t(n) WHERE hash(n) % 7 = 1) >= 0"
BOMB = (
    "SELECT * FROM whole WHERE "
    "(SELECT max(len(bomb)) FROM (SELECT list(n::varchar) AS bomb FROM range(90000000) AS t(n))) >= 0"
)


def sleeping(seconds: float) -> str:
    """Sales that take so long to read, without work for the machine."""
    return f"SELECT * FROM whole WHERE (SELECT coalesce(sleep_ms({round(seconds * 1000)}), 0)) >= 0"


def repeated(times: int) -> str:
    """Every line of the sales so many times, as lines of their own."""
    return f"SELECT * REPLACE (sale_id || '-' || nth AS sale_id) FROM whole, range({times}) AS copies(nth)"


def altered_publication(published: Published, root: Path, sales: str) -> Path:
    """A folder with a copy of the publication, in which the sales are what that SELECT says."""
    shutil.copytree(published.settings.publication_dir / published.version, root / published.version)
    (root / "current").write_text(published.version)
    with duckdb.connect(root / published.version / "data.duckdb") as database:
        database.execute("ALTER TABLE marts.fct_sales RENAME TO whole")
        database.execute(f"CREATE VIEW marts.fct_sales AS {sales.replace('whole', 'marts.whole')}")
    return root


class Server:
    """`insight serve` over a folder of publications, on a free port, with a state database of its own.

    Parameters
    ----------
    publications
        The folder that it serves.
    folder
        Where its state and its log go.
    settings
        By their names in `api.settings.Settings`.
    """

    def __init__(self, publications: Path, folder: Path, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._state_url = f"sqlite:///{folder / 'state.db'}"
        given = {"publication_dir": publications, "state_url": self._state_url, "port": self.port, **settings}
        self._environment = os.environ | {f"INSIGHT_{name.upper()}": str(value) for name, value in given.items()}
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None, "the server is not running"
        return self._process

    @property
    def log(self) -> str:
        """What it has logged, and whatever else came over stderr."""
        return self._log.read_text(errors="replace")

    @property
    def memory_mb(self) -> float:
        """MB of memory that the process holds now."""
        return self._memory("VmRSS")

    @property
    def peak_memory_mb(self) -> float:
        """MB of memory that the process has held at most."""
        return self._memory("VmHWM")

    def start(self, *, path: str = "/readyz") -> None:
        """Return when it is ready, or when another path answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([_INSIGHT, "serve"], env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._answers(path):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"the service did not start:\n{self.log[-3_000:]}")
            time.sleep(0.1)

    def terminate(self) -> None:
        """Ask it to stop, as an orchestrator does; it does so in its own time."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Return when the process is gone. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def key(self, name: str = "tests", *, role: str = "admin") -> str:
        """A new key."""
        state = open_state(self._state_url)
        try:
            return ApiKeys(state).create(name, role=role)
        finally:
            state.dispose()

    def client(self, key: str | None = None, *, timeout_s: float = 60.0) -> httpx.Client:
        """A client of it, with a key."""
        headers = {"Authorization": f"Bearer {key or self.key()}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def async_client(self, key: str | None = None, *, timeout_s: float = 60.0, most: int = 1_000) -> httpx.AsyncClient:
        """A client of it that opens as many connections as are asked for, with a key."""
        headers = {"Authorization": f"Bearer {key or self.key()}"}
        # Far less than the service keeps an idle connection: on a busy machine seconds pass before a request is out.
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=1.0)
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s, limits=limits)

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=1).status_code == 200
        except httpx.HTTPError:
            return False

    def _memory(self, name: str) -> float:
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            pytest.skip("the memory of a process is read from /proc")
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) / 1024


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start a service over a folder of publications with settings; it ends with the test."""
    servers: list[Server] = []

    def start(publications: Path, **settings: object) -> Server:
        server = Server(publications, tmp_path_factory.mktemp("server"), **settings)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()
