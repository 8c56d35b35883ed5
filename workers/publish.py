"""Publications: a whole, immutable version of marts, semantic manifest and dbt artifacts, made current atomically.

The layout on disk is the contract with `api.publication`, which reads it. Everything is written into a hidden folder
first; one rename makes the version exist, one replacement of the pointer file makes it current. A kill at any point
leaves the previous version serving and at most a hidden folder behind, which the next publication removes. Each step
is on the disk before the next begins, so a power cut does no more than a kill.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, ClassVar

from api.errors import Unavailable
from api.outlook_model import CUSTOMERS_FILE, OUTLOOK_FILE
from api.publication import SEGMENTS_FILE, PublicationFolder, read_info
from workers.build_database import BuildDatabase, iso
from workers.errors import PublicationError, WarehouseError
from workers.transform import BuildResult

_POINTER = "current"
_HIDDEN = ".building-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What stands beside the data of a version: files by name, of those in `FILES`."""

    FILES: ClassVar[tuple[str, ...]] = (SEGMENTS_FILE, OUTLOOK_FILE, CUSTOMERS_FILE)

    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def segments(self) -> Mapping[str, Any] | None:
        """The model of the segments as plain data; None if its customers are in none."""
        return json.loads(self.files[SEGMENTS_FILE]) if SEGMENTS_FILE in self.files else None


class PublicationStore:
    """The publications in one folder; writes what `api.publication` reads. One writer at a time (see `pipeline`)."""

    def __init__(self, root: Path, *, keep: int) -> None:
        self._root = root
        self._folder = PublicationFolder(root)
        self._keep = keep

    @property
    def root(self) -> Path:
        """The folder of all publications."""
        return self._root

    def current(self) -> str | None:
        """The version that readers see, or None before the first publication."""
        return self._folder.current_version()

    def versions(self) -> tuple[str, ...]:
        """Every readable version, newest first."""
        return tuple(dict.fromkeys(info.version for info in self._folder.versions()))  # a copied folder counts once

    def fingerprint(self, version: str) -> str | None:
        """The hash of what the version was made of, or None where it is gone or its record damaged."""
        try:
            return read_info(self._folder.path(version)).fingerprint
        except Unavailable:
            return None

    def models(self) -> Models:
        """What the current version's customers were put into segments and foreseen with."""
        current = self.current()
        if current is None:
            return Models()
        folder = self._folder.path(current)
        found = {name: (folder / name).read_bytes() for name in Models.FILES if (folder / name).is_file()}
        return Models(files=found)

    def as_of(self, version: str) -> date:
        """The day that the version looks back from."""
        return read_info(self._folder.path(version)).as_of

    def loaded_at(self, version: str, source: str) -> datetime | None:
        """When the source was loaded last, as far as the version has it."""
        sources = read_info(self._folder.path(version)).sources
        return next((each.loaded_at for each in sources if each.name == source), None)

    def customer_segments(self, version: str, database: BuildDatabase) -> Mapping[int, int]:
        """The segment of each customer of the version that is in one, by its id."""
        columns, folder = ("customer_id", "segment_id"), self._folder.path(version)
        return dict(database.rows("fct_customer_segments", columns, version=version, folder=folder))  # type: ignore[arg-type] # pairs

    def segment_names(self, version: str) -> Mapping[int, str]:
        """The name of each segment of the version; none, where its customers are in none."""
        file = self._folder.path(version) / SEGMENTS_FILE
        if not file.is_file():
            return {}
        segments = json.loads(file.read_text(encoding="utf-8"))["segments"]
        return {segment["segment_id"]: segment["name"] for segment in segments}

    def publish(
        self,
        database: BuildDatabase,
        built: BuildResult,
        *,
        fingerprint: str,
        rehearse: Callable[[Path], None],
        models: Models | None = None,
    ) -> str:
        """The new current version, copied from a build that passed its tests.

        Parameters
        ----------
        database
            What dbt built into; its marts are copied, never changed.
        built
            What dbt said of the build.
        fingerprint
            A hash of what the build was made of.
        rehearse
            Called with the folder of the candidate before anybody can see it; it raises to refuse it.
        models
            What its customers were put into segments and foreseen with.

        Raises
        ------
        PublicationError
            The rehearsal failed; the previous version goes on serving.
        """
        with self.candidate(database, built, fingerprint=fingerprint, models=models) as hidden:
            rehearse(hidden)
            for written in (*hidden.iterdir(), hidden):
                _sync(written)
            version = hidden.name.removeprefix(_HIDDEN)
            hidden.rename(self._root / version)
        _sync(self._root)
        self._point(version)
        self._retire()
        database.keep_only(self._kept())
        return version

    @contextmanager
    def candidate(
        self, database: BuildDatabase, built: BuildResult, *, fingerprint: str, models: Models | None = None
    ) -> Iterator[Path]:
        """The folder of a whole version that nobody sees; gone with its data after the block, unless it was renamed."""
        self._sweep()
        database.keep_only(self._kept())
        version = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        hidden = self._root / f"{_HIDDEN}{version}"
        hidden.mkdir(parents=True)
        try:
            _write(hidden, database, built, version=version, fingerprint=fingerprint)
            for name, content in (models or Models()).files.items():
                (hidden / name).write_bytes(content)
            yield hidden
        finally:
            if hidden.exists():
                shutil.rmtree(hidden, ignore_errors=True)
                with suppress(WarehouseError):  # the next publication sweeps, too
                    database.keep_only(self._kept())

    def rollback(self, version: str | None = None) -> str:
        """The version that is current now: the named one, or else the one before the current.

        Raises
        ------
        PublicationError
            There is no such version, or none to go back to.
        """
        versions = self.versions()
        if version is None:
            current = self.current()
            older = [candidate for candidate in versions if current is None or candidate < current]
            if not older:
                raise PublicationError(
                    "There is no older publication to go back to", hint="See: insight pipeline status"
                )
            version = older[0]
        if version not in versions or self.fingerprint(version) is None:
            raise PublicationError(f"There is no publication {version}", hint="See: insight pipeline status")
        self._point(version)
        return version

    def _point(self, version: str) -> None:
        fresh = self._root / f"{_POINTER}.{secrets.token_hex(4)}"
        fresh.write_text(version + "\n", encoding="utf-8")
        _sync(fresh)
        fresh.replace(self._root / _POINTER)
        _sync(self._root)

    def _retire(self) -> None:
        """Drop the oldest beyond those to keep. A reader that has one open keeps it: the file lives until it closes."""
        current = self.current()
        for version in [name for name in self._kept() if name != current][self._keep - 1 :]:
            shutil.rmtree(self._root / version, ignore_errors=True)

    def _kept(self) -> list[str]:
        """Every version that has a folder, newest first: by name, not by record, as a damaged one has its turn, too."""
        return sorted((path.parent.name for path in self._root.glob("[!.]*/publication.json")), reverse=True)

    def _sweep(self) -> None:
        for leftover in [*self._root.glob(f"{_HIDDEN}*"), *self._root.glob(f"{_POINTER}.*")]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _sync(path: Path) -> None:
    """Return when the file, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(folder: Path, database: BuildDatabase, built: BuildResult, *, version: str, fingerprint: str) -> None:
    for name in ("manifest.json", "run_results.json"):
        shutil.copyfile(built.target / name, folder / name)
    manifest = json.loads((built.target / "semantic_manifest.json").read_text(encoding="utf-8"))
    relocated = json.dumps(_relocated(manifest, database, version=version))
    (folder / "semantic_manifest.json").write_text(relocated, encoding="utf-8")
    facts = database.copy_marts(version, folder)
    record = {
        "version": version,
        "created_at": datetime.now(UTC),
        **facts,
        "tests_passed": built.tests_passed,
        "tests_warned": built.tests_warned,
        "fingerprint": fingerprint,
    }
    # Last, as its presence says that the version is complete.
    (folder / "publication.json").write_text(json.dumps(record, default=iso, indent=2), encoding="utf-8")


def _relocated(manifest: dict[str, Any], database: BuildDatabase, *, version: str) -> dict[str, Any]:
    """The manifest with every relation named where the version has it, instead of where it was built."""
    relations = [model["node_relation"] for model in manifest["semantic_models"]]
    relations += [spine["node_relation"] for spine in manifest["project_configuration"]["time_spines"]]
    for relation in relations:
        relation["database"] = None
        relation["relation_name"] = database.relation(relation["schema_name"], relation["alias"], version=version)
    return manifest
