"""The service as a process of its own.

Import the fixture where it is used: `serve = server.serve`.
"""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from api.keys import ApiKeys
from api.state import open_state
from tests.services import free_port

INSIGHT = Path(sys.executable).with_name("insight")


def trusting(certificate: Path) -> ssl.SSLContext:
    """For clients that trust that certificate, or what it has signed, and no other."""
    trust = ssl.create_default_context(cafile=str(certificate))
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return trust


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

    # Ready in 2 s; a busy machine gets thirty times that.
    start_s = 60.0

    def __init__(self, publications: Path, folder: Path, **settings: object) -> None:
        self.port = free_port()
        self._trust = trusting(Path(str(settings["tls_cert_file"]))) if "tls_cert_file" in settings else None
        self.url = f"http{'s' if self._trust else ''}://127.0.0.1:{self.port}"
        self.flight_port = int(str(settings.get("flight_port", 0)))  # 0 where it does not speak Flight SQL
        self.state_url = str(settings.get("state_url", f"sqlite:///{folder / 'state.db'}"))
        given = {"publication_dir": publications, "port": self.port, **settings, "state_url": self.state_url}
        self._environment = os.environ | {f"INSIGHT_{name.upper()}": str(value) for name, value in given.items()}
        self._log = folder / f"{self.port}.log"
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

    def wait_for_log(self, text: str, *, within_s: float = 20.0) -> None:
        """Return when its log has the text: a line comes a moment after the answer that it is about."""
        deadline = time.monotonic() + within_s
        while text not in self.log:
            assert time.monotonic() < deadline, f"not logged: {text}\n{self.log[-2_000:]}"
            time.sleep(0.05)

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
            self._process = subprocess.Popen([INSIGHT, "serve"], env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + self.start_s
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
        state = open_state(self.state_url)
        try:
            return ApiKeys(state).create(name, role=role)
        finally:
            state.dispose()

    def client(self, key: str | None = None, *, timeout_s: float = 60.0) -> httpx.Client:
        """A client of it, with a key."""
        headers = {"Authorization": f"Bearer {key or self.key()}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, verify=self._trust or True)

    def async_client(self, key: str | None = None, *, timeout_s: float = 60.0, most: int = 1_000) -> httpx.AsyncClient:
        """A client of it that opens as many connections as are asked for, with a key."""
        headers = {"Authorization": f"Bearer {key or self.key()}"}
        # Far less than the service keeps an idle connection: on a busy machine seconds pass before a request is out.
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=1.0)
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s, limits=limits)

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=1, verify=self._trust or True).status_code == 200
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
