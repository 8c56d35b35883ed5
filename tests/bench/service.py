"""The service as `insight serve` runs it, over a synthetic data set of a size, for a benchmark."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.keys import ApiKeys
from api.state import open_state

REPOSITORY = Path(__file__).parent.parent.parent
HOME = REPOSITORY / ".insight" / "bench"
PORT = 8765
LINES = 52_924  # of sales, at scale 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that answers at `PORT`."""

    home: Path
    key: str
    pid: int

    def peak_mib(self) -> float:
        """The most memory that the process ever had."""
        return _memory_mib(self.pid, "VmHWM")

    def memory_mib(self) -> float:
        """The memory that the process has now."""
        return _memory_mib(self.pid, "VmRSS")


def published(scale: int) -> Path:
    """The home of a publication of that size, made unless it is there."""
    home = HOME / f"scale-{scale}"
    insight = [str(Path(sys.executable).with_name("insight"))]
    data = home / "data"
    if not (data / "Tax_amount.csv").is_file():
        subprocess.run([*insight, "generate", "--out", str(data), "--scale", str(scale)], check=True)
    run = [*insight, "pipeline", "run", "--data", str(data), "--if-changed"]
    subprocess.run(run, check=True, env=environment(home), stdout=sys.stderr)
    return home


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[Running]:
    """The service over what is published at `home`, until the block ends; a fresh state, so that nothing is kept."""
    for left in home.glob("state.db*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    state = open_state(f"sqlite:///{home}/state.db")
    key = ApiKeys(state).create("bench", role="admin")
    state.dispose()
    with running(
        [str(Path(sys.executable).with_name("insight")), "serve"], log=home, env=environment(home) | settings
    ) as pid:
        yield Running(home=home, key=key, pid=pid)


@contextmanager
def running(command: list[str], *, log: Path, env: dict[str, str], port: int = PORT) -> Iterator[int]:
    """The process id of a server at the port, ready to answer."""
    with (log / f"service-{port}.log").open("wb") as sink:
        process = subprocess.Popen(command, env=env, stderr=sink, cwd=REPOSITORY)
    try:
        _wait_until_ready(log, port)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def environment(home: Path) -> dict[str, str]:
    return os.environ | {
        "INSIGHT_WAREHOUSE_URL": f"duckdb:///{home}/warehouse.duckdb",
        "INSIGHT_PUBLICATION_DIR": str(home / "publications"),
        "INSIGHT_STATE_URL": f"sqlite:///{home}/state.db",
        "INSIGHT_PORT": str(PORT),
        "INSIGHT_FLIGHT_PORT": "0",
    }


def _wait_until_ready(log: Path, port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the service did not become ready; see {log}/service-{port}.log")


def _memory_mib(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024
