"""What is published: the versions on disk, the pointer to the current one, and the one that is being served.

A publication is a folder, complete and immutable once the pointer names it (written by `workers.publish`):

    <publication_dir>/current                 the version that readers see, one line, replaced atomically
    <publication_dir>/<version>/publication.json, data.duckdb, semantic_manifest.json, manifest.json, run_results.json
    <publication_dir>/<version>/segments.json, where its customers are in segments

On Snowflake there is no data.duckdb: publication.json names the schema that holds the marts of the version.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict

from api.errors import SemanticLayerError, Unavailable

_log = structlog.get_logger(__name__)

SEGMENTS_FILE = "segments.json"
_RETRY = timedelta(seconds=2)


class SourceFreshness(BaseModel):
    """How fresh one source is: when it was last loaded, and the last day its data speaks of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: int
    loaded_at: datetime | None
    data_through: date | None


class PublicationInfo(BaseModel):
    """What `publication.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    created_at: datetime
    as_of: date
    data_through: date
    tables: dict[str, int]
    tests_passed: int
    tests_warned: int
    fingerprint: str
    sources: tuple[SourceFreshness, ...]
    snowflake_schema: str | None = None

    @property
    def dialect(self) -> str:
        """The SQL that its data are asked in, as the dbt Semantic Layer names it."""
        return "SNOWFLAKE" if self.snowflake_schema else "DUCKDB"


class PublicationFolder:
    """The publications on disk; reads, never writes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def current_version(self) -> str | None:
        """The version that the pointer names, or None before the first publication."""
        try:
            # A pointer that is no text names no version, and is refused as such.
            return (self._root / "current").read_text(encoding="utf-8", errors="replace").strip() or None
        except FileNotFoundError:
            return None

    def path(self, version: str) -> Path:
        """The folder of a version."""
        return self._root / version

    def versions(self) -> tuple[PublicationInfo, ...]:
        """Every readable version, newest first."""
        folders = sorted((path.parent for path in self._root.glob("[!.]*/publication.json")), reverse=True)
        return tuple(info for folder in folders if (info := _info_or_none(folder)) is not None)

    def lineage(self, version: str) -> LineageGraph:
        """The dbt nodes of the version and what each depends on.

        Raises
        ------
        Unavailable
            dbt's manifest is gone or damaged.
        """
        try:
            manifest = json.loads((self.path(version) / "manifest.json").read_text(encoding="utf-8"))
            parents = {str(name): tuple(read) for name, read in manifest["parent_map"].items()}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unavailable(
                f"The lineage of publication {version} cannot be read",
                hint="Publish again: insight pipeline publish",
                retry_after=_RETRY,
            ) from error
        return LineageGraph(parents=parents)


def read_info(folder: Path) -> PublicationInfo:
    """What the publication in the folder says of itself.

    Raises
    ------
    Unavailable
        The folder is gone or damaged.
    """
    try:
        return PublicationInfo.model_validate_json((folder / "publication.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"Publication {folder.name:.100} cannot be read",
            hint="Publish again, or go back: insight pipeline rollback",
        ) from error


def _info_or_none(folder: Path) -> PublicationInfo | None:
    try:
        return read_info(folder)
    except Unavailable:
        return None  # retention may remove a folder while it is listed


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageGraph:
    """dbt's nodes by unique id, each with the nodes that it reads."""

    parents: dict[str, tuple[str, ...]]

    def upstream(self, node: str) -> tuple[tuple[str, str], ...]:
        """Every edge (reader, read) above the node, nearest first; empty for an unknown node."""
        edges: list[tuple[str, str]] = []
        seen, frontier = {node}, [node]
        while frontier:
            reader = frontier.pop(0)
            for read in self.parents.get(reader, ()):
                edges.append((reader, read))
                if read not in seen:
                    seen.add(read)
                    frontier.append(read)
        return tuple(edges)


class Opened(Protocol):
    """A publication made ready to answer; holds connections until it is closed."""

    @property
    def version(self) -> str:
        """Which publication it is."""

    def close(self) -> None:
        """Let go of everything; no lease is out any more."""


P = TypeVar("P", bound=Opened)


class ServedPublication(Generic[P]):
    """The publication that answers now, exchanged under running queries.

    A query takes a lease and keeps its version to the end, even if a newer one comes; a version that was replaced
    is closed when its last lease is given back. All methods belong to the event loop's thread.
    """

    def __init__(self, folder: PublicationFolder, *, opener: Callable[[str], P]) -> None:
        self._folder = folder
        self._opener = opener
        self._current: _Leased[P] | None = None
        self._open_versions: dict[str, _Leased[P]] = {}
        self._refused: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a publication can answer."""
        return self._current is not None

    @property
    def version(self) -> str | None:
        """Which publication answers now, if any."""
        return self._current.opened.version if self._current else None

    @property
    def is_refusing(self) -> bool:
        """Whether the pointer names a publication that cannot be opened."""
        return self._refused is not None

    @contextmanager
    def lease(self, version: str | None = None) -> Iterator[P]:
        """The current publication, or a version that is still open, kept open for the length of the block.

        Raises
        ------
        Unavailable
            Nothing has been published yet, or the version was closed meanwhile.
        """
        leased = self._open_versions.get(version) if version else self._current
        if leased is None:
            raise Unavailable(
                f"Publication {version} was replaced" if version else "Nothing is published yet",
                hint="Ask again." if version else "Run: insight pipeline run --data DIR",
                retry_after=_RETRY,
            )
        leased.count += 1
        try:
            yield leased.opened
        finally:
            leased.count -= 1
            self._close_if_idle(leased)

    async def refresh(self) -> None:
        """Serve what the pointer names. One that cannot be opened is logged once and never replaces a good one."""
        version = self._folder.current_version()
        serving = self.version
        if version == serving:
            self._refused = None
        if version is None or version in (serving, self._refused):
            return
        try:
            opened = await asyncio.to_thread(self._open, version)
        except SemanticLayerError as error:
            self._refused = version
            _log.error("publication_refused", version=version, serving=serving, detail=error.detail, hint=error.hint)
            return
        self._refused = None
        self._replace(_Leased(opened))
        _settle_memory()
        _log.info("publication_served", version=version, replaced=serving)

    def _open(self, version: str) -> P:
        opened = self._opener(version)
        if opened.version != version:  # a copied folder; it would be taken for a new version at every look
            opened.close()
            raise Unavailable(
                f"Publication {version} says it is {opened.version}", hint="Publish again: insight pipeline publish"
            )
        return opened

    async def follow(self, *, every: timedelta) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(every.total_seconds())
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001 - the outermost loop: a fault here must not end the watch
                _log.exception("publication_watch_failed")

    def close(self) -> None:
        """Stop serving; what is still leased closes when given back."""
        self._replace(None)
        gc.unfreeze()  # else DuckDB's binding reports, at the end of the process, all that is left as leaked

    def _replace(self, leased: _Leased[P] | None) -> None:
        previous, self._current = self._current, leased
        if leased is not None:
            self._open_versions[leased.opened.version] = leased
        if previous is not None:
            self._close_if_idle(previous)

    def _close_if_idle(self, leased: _Leased[P]) -> None:
        if leased is not self._current and leased.count == 0:
            leased.opened.close()
            if self._open_versions.get(leased.opened.version) is leased:
                del self._open_versions[leased.opened.version]


def _settle_memory() -> None:
    """Take a publication's many objects out of the garbage collector's rounds, which they made 80 ms long."""
    gc.unfreeze()  # else what the version before left behind would stay for ever
    gc.collect()
    gc.freeze()


class _Leased(Generic[P]):
    """An open publication, and how many leases of it are out."""

    def __init__(self, opened: P) -> None:
        self.opened = opened
        self.count = 0
