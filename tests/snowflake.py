"""An emulated Snowflake account: fakesnow's HTTP server, run as a process of its own, with its gaps closed.

What speaks to it is real: connector, SQLAlchemy dialect, dbt adapter. It computes with DuckDB, in memory, and every
statement that it is sent is recorded, with its parameters (query tags): what it does not know (roles, grants, policies,
warehouses) it takes and does nothing, so that a test can see what would have reached an account.
docs/snowflake.md says what this cannot show.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

_START_S = 30.0


class SnowflakeEmulator:
    """A running emulator. Every database is made when somebody connects to it, so a test has one of its own by name."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.record = folder / "statements.jsonl"
        self.record.touch()
        command = [sys.executable, "-W", "ignore", "-m", "tests.snowflake_server", str(self.port), str(self.record)]
        with (folder / "emulator.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._is_listening():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"the emulator did not start:\n{(folder / 'emulator.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def url(self, database: str) -> str:
        """INSIGHT_WAREHOUSE_URL for the database."""
        place = f"tester:not-a-secret@127.0.0.1:{self.port}/{database}/PUBLIC"
        return f"snowflake://{place}?account=emulated&protocol=http&warehouse=LOADING&role=TRANSFORMER"

    def connect(self, database: str) -> SnowflakeConnection:
        """A session of the real connector; each statement commits itself."""
        from snowflake.connector import connect

        return connect(
            user="tester",
            password="not-a-secret",
            account="emulated",
            host="127.0.0.1",
            port=self.port,
            protocol="http",
            database=database,
            schema="PUBLIC",
            # Else it asks for minutes again what the emulator does not know.
            network_timeout=30,
            login_timeout=30,
            paramstyle="numeric",
            arrow_number_to_decimal=True,
        )

    def statements(self, *, database: str | None = None) -> list[dict[str, Any]]:
        """What it was sent so far, in order: `sql`, `parameters` of the statement, `bindings`, `database`."""
        sent = [json.loads(line) for line in self.record.read_text(encoding="utf-8").splitlines()]
        return [each for each in sent if database is None or (each["database"] or "").upper() == database.upper()]

    def end_transactions(self, database: str) -> None:
        """Roll back what is open in the database: Snowflake does, some minutes after its client was killed."""
        httpx.post(f"http://127.0.0.1:{self.port}/emulator/end-transactions/{database}").raise_for_status()

    def stop(self) -> None:
        """Return when the process is gone, with everything it held. Idempotent."""
        self._process.kill()
        self._process.wait()

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="session")
def snowflake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SnowflakeEmulator]:
    """The emulator of this test process."""
    emulator = SnowflakeEmulator(tmp_path_factory.mktemp("snowflake"))
    yield emulator
    emulator.stop()
