"""Real services for tests, started on loopback and free ports: a pytest plugin, and what its fixtures stand on."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa

# Where Debian, Fedora and Homebrew put what is not in PATH.
_POSTGRES_FOLDERS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql*/bin")

# Redis is ready in 20 ms; a busy machine gets five hundred times that.
_START_S = 10.0


class RedisServer:
    """A Redis that keeps nothing on disk, and that a test may stop, pause, flush and start again on the same port."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self, *options: str) -> None:
        """Return when it answers."""
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *options], cwd=self._folder, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._is_answering():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"redis-server did not start:\n{(self._folder / 'redis.log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Return when the process is gone, with everything it held. Idempotent."""
        if self._process is not None:
            self._process.kill()  # works on a paused one, too
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop answering, with every connection left open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Answer again, what was asked meanwhile first."""
        self._signal(signal.SIGCONT)

    def ask(self, *words: str | bytes) -> bytes:
        """The reply to one short command, as Redis writes it; blocks."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(request)
            return connection.recv(65_536)

    def _is_answering(self) -> bool:
        try:
            return self.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        self._process.send_signal(number)


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """A Redis for the length of the block; the test is skipped, or fails, where none is installed."""
    server = RedisServer(required_binary("redis-server"), folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


class PostgresServer:
    """A PostgreSQL of its own, which a test may kill and start again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._initdb, self._postgres = (required_binary(name, *_POSTGRES_FOLDERS) for name in ("initdb", "postgres"))
        # It refuses to run as root, so root hands it to whoever Debian made for it, or to nobody.
        known = {user.pw_name for user in pwd.getpwall()}
        self._user = None if os.geteuid() else next(name for name in ("postgres", "nobody") if name in known)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"postgresql+psycopg://insight@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Return when it answers; the first time, with an empty database."""
        if not (data := self._folder / "data").exists():
            if self._user is not None:
                shutil.chown(self._folder, self._user)
            command = [self._initdb, "-D", data, "-U", "insight", "-A", "trust", "-N", "-E", "UTF8", "--locale=C"]
            subprocess.run(command, user=self._user, cwd=self._folder, check=True, capture_output=True)
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._postgres, "-D", data, *options], user=self._user, cwd=self._folder, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 3 * _START_S
        while not self._is_answering():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"postgres did not start:\n{(self._folder / 'postgres.log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Return when the process is gone, however busy it was. Idempotent."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once, and its children with it; SIGKILL would leave them
            self._process.wait()
            self._process = None

    def _is_answering(self) -> bool:
        engine = sa.create_engine(self.url)
        try:
            engine.connect().close()
        except sa.exc.OperationalError:
            return False
        finally:
            engine.dispose()
        return True


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for the length of the block; the test is skipped, or fails, where none is installed."""
    # Not under pytest's own folder, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory(prefix="insight-postgres-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own."""
    with running_postgres() as server:
        yield server


def required_binary(name: str, *folders: str) -> str:
    """The path of a program, in PATH or in one of the folders (under the root of the file system, `*` for any name).

    Without it the test is skipped, or fails where REQUIRE_SERVICES=1 asks for all of them.
    """
    found = [str(folder) for pattern in folders for folder in sorted(Path("/").glob(pattern), reverse=True)]
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *found]))
    return path or absent(f"{name} is not installed")


def absent(reason: str) -> NoReturn:
    """Skip the test, or fail it where REQUIRE_SERVICES=1 says that everything is there."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"{reason}, and REQUIRE_SERVICES=1")
    pytest.skip(reason)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
