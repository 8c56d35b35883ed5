"""A publication that is not published yet, served to this machine alone: to whoever completes it by asking it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from api.errors import Unavailable
from api.keys import ApiKeys
from api.main import create_app
from api.policy import BuiltInRole
from api.publication import read_info
from api.settings import LogLevel, Settings
from api.state import open_state

_START_S = 60.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where it answers, and the only key that it takes."""

    url: str
    key: str


@contextmanager
def serving(folder: Path, *, warehouse_url: str = "duckdb://") -> Iterator[Access]:
    """The service over the one publication in the folder, on a free port of loopback, for the length of the block.

    `warehouse_url` says where its data are, if they are not in the folder.

    It has a state and a key of its own, and none of the settings of this process's environment: neither roles nor
    caches of the published service reach it.

    Raises
    ------
    Unavailable
        The publication is damaged, or the service does not start.
    """
    version = read_info(folder).version
    with TemporaryDirectory(prefix="insight-candidate-") as scratch:
        publications = Path(scratch) / "publications"
        publications.mkdir()
        (publications / version).symlink_to(folder.resolve(), target_is_directory=True)
        (publications / "current").write_text(version, encoding="utf-8")
        url = f"sqlite:///{Path(scratch) / 'state.db'}"
        state = open_state(url)
        key = ApiKeys(state).create("candidate", role=BuiltInRole.ADMIN)
        state.dispose()
        port = _free_port()
        with _Running(_settings(publications, url, port, warehouse_url)):
            yield Access(url=f"http://127.0.0.1:{port}", key=key)


def _settings(publications: Path, state_url: str, port: int, warehouse_url: str) -> Settings:
    """The defaults, whatever the environment says."""
    return Settings.model_construct(
        publication_dir=publications,
        warehouse_url=warehouse_url,
        state_url=state_url,
        port=port,
        flight_port=0,
        log_level=LogLevel.WARNING,
    )


class _Running:
    """A block in which the service runs in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._app = create_app(settings)
        self._port = settings.port
        self._server: Any = Server(  # Granian ships no types
            self._app,
            address="127.0.0.1",
            port=settings.port,
            interface=Interfaces.ASGI,
            websockets=False,
            log_enabled=False,
            http=HTTPModes.http1,
        )
        self._thread = threading.Thread(target=self._run, name="candidate", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not _is_listening(self._port):
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise Unavailable(
                    f"The candidate cannot be served: {self._failure or 'it did not start in time'!s:.200}",
                    hint="Run the pipeline again; the version before serves on.",
                ) from self._failure
            time.sleep(_LOOK_S)

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(_START_S)

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve()

        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for it
            self._failure = getattr(self._app.state, "fault", error)


def _is_listening(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
