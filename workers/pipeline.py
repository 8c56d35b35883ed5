"""The pipeline: ingest, build, test, segment, publish. One run at a time; a kill leaves what serves serving."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout

from api.errors import SemanticLayerError
from api.snowflake_account import SnowflakeAccount
from api.snowflake_engine import SnowflakeSessions
from api.warehouse import EngineLimits
from workers.build_database import BuildDatabase
from workers.duckdb_build import DuckDbBuild
from workers.errors import PipelineBusyError, PublicationError, SegmentsError, SourceError
from workers.ingest import FileReport, LoadProgress, LoadReport, LoadStatus, ingest
from workers.locations import DuckDbFile, read_location
from workers.messages import TOPICS
from workers.publish import Models, PublicationStore
from workers.raw_tables import EVENT_TABLES
from workers.recordings import RECORDINGS, replay
from workers.rescoring import SALES_EVENTS, customers_of_events, rescore
from workers.segments import DEPENDENTS, ProjectCopy, learn, promoted_model, require_libraries
from workers.settings import WorkerSettings
from workers.sinks import Warehouse, open_warehouse
from workers.snowflake_build import SnowflakeBuild
from workers.transform import BuildProgress, BuildResult, build_marts, fed_by

# The service's default limits.
_REHEARSAL = EngineLimits(memory_mb=512, threads=2, connections=1, query_timeout=timedelta(seconds=30))

_LONGEST_REASON = 300

_DEFINITIONS = (".sql", ".yml", ".csv", ".md")
_BUILT = "target"  # dbt's own output, if somebody runs it by hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Whom the pipeline tells what it does."""

    loading: Callable[[LoadProgress], None]
    loaded: Callable[[LoadReport], None]
    building: Callable[[BuildProgress], None]
    built: Callable[[BuildResult], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What marts are made of: a hash of files, definitions and as-of date, and one of each event table's offsets."""

    base: str
    topics: Mapping[str, str]

    def __str__(self) -> str:
        """The fingerprint that a publication carries."""
        return " ".join((self.base, *(f"{name}={value}" for name, value in self.topics.items())))

    @classmethod
    def read(cls, fingerprint: str) -> Ingredients:
        """What a fingerprint says; of one that says nothing, something that equals nothing else."""
        base, *topics = fingerprint.split() or [""]
        return cls(base=base, topics=dict(topic.split("=", 1) for topic in topics if "=" in topic))

    def topics_that_differ(self, other: Ingredients) -> tuple[str, ...]:
        """The event tables of which the other has other events."""
        return tuple(name for name, value in other.topics.items() if self.topics.get(name) != value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """The copy of the dbt project, and what builds it, or a part: `build(select=…)`."""

    project: ProjectCopy
    build: Callable[..., BuildResult]


class Pipeline:
    """Files in, a publication out."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._database = build_database(settings)
        self._store = PublicationStore(settings.publication_dir, keep=settings.keep_publications)

    @property
    def store(self) -> PublicationStore:
        """The publications."""
        return self._store

    def run(self, data: Path, watcher: Watcher) -> str:
        """Load what is new in the folder, build, test and publish; the new version comes back.

        Raises
        ------
        SourceError
            A file could not be loaded. The others are, but nothing is published: it would lack that file.
        BuildError, SegmentsError, PublicationError, WarehouseError, PipelineBusyError
            As their names say; the version before serves on.
        """
        with self._alone():
            self._load(data, watcher)
            return self._build_and_publish(watcher)

    def run_if_changed(self, data: Path, watcher: Watcher) -> str:
        """Like `run`, but the current version comes back where it was made of just these files and definitions."""
        with self._alone():
            self._load(data, watcher)
            current = self._store.current()
            if current is not None and self._store.fingerprint(current) == str(self._ingredients()):
                return current
            return self._build_and_publish(watcher)

    def refresh(self, watcher: Watcher) -> str:
        """Build and test what new events feed, and publish; the current version comes back where there are none.

        Where files or definitions are new too, or nothing is published yet, all is built. Raises as `run` does.
        """
        with self._alone():
            current = self._store.current()
            before = Ingredients.read(self._store.fingerprint(current) or "") if current is not None else None
            now = self._ingredients()
            if current is not None and before == now:
                return current
            if before is None or before.base != now.base:
                return self._build_and_publish(watcher)
            return self._build_and_publish(watcher, topics=before.topics_that_differ(now))

    def publish(self, watcher: Watcher) -> str:
        """Build, test and publish what is loaded already; the new version comes back. Raises as `run` does."""
        with self._alone():
            return self._build_and_publish(watcher)

    def rollback(self, version: str | None) -> str:
        """Make an older version current, the one before if none is named; in milliseconds, for nothing is copied.

        Raises
        ------
        PublicationError
            There is no such version.
        """
        with self._folder_locked():  # nothing is asked of the warehouse
            return self._store.rollback(version)

    def _load(self, data: Path, watcher: Watcher) -> None:
        with open_warehouse(self._settings.warehouse_url) as warehouse:
            report = ingest(data, warehouse=warehouse, progress=watcher.loading)
            report = replace(report, files=(*report.files, *_replay_recordings(data, warehouse)))
        watcher.loaded(report)
        _refuse_failures(report)

    def _ingredients(self) -> Ingredients:
        """What the marts are made of now, the model that puts customers into segments included."""
        with open_warehouse(self._settings.warehouse_url) as warehouse:
            return self._with_model(self._sources(warehouse))

    def _with_model(self, sources: Ingredients) -> Ingredients:
        return replace(sources, base=_hash([sources.base, str(promoted_model(self._settings))]))

    def _sources(self, warehouse: Warehouse) -> Ingredients:
        warehouse.ensure_raw_tables()
        parts = [str(self._settings.as_of), *sorted(warehouse.loaded_hashes())]
        positions = warehouse.stream_positions()
        project = self._settings.dbt_project_dir
        files = [path for folder in (project, project.parent / "semantic_models") for path in _definitions(folder)]
        parts += [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        by_topic = {topic: [each for each in positions if each.event_table == topic] for topic in EVENT_TABLES}
        return Ingredients(
            base=_hash(parts),
            topics={
                name: _hash([f"{each.topic}/{each.partition}@{each.next_offset}" for each in found])
                for name, found in by_topic.items()
            },
        )

    def _build_and_publish(self, watcher: Watcher, *, topics: Collection[str] | None = None) -> str:
        """Build everything, or what these event tables feed, and publish it."""
        settings, database = self._settings, self._database
        if settings.segments:
            require_libraries()
        with open_warehouse(settings.warehouse_url) as warehouse, ExitStack() as kept:
            # Before the build: what comes during it is no part of it.
            sources, bought = self._sources(warehouse), self._bought(warehouse, topics)
            kept.enter_context(warehouse.reserved())
            builder = self._builder(watcher)
            if topics is None:
                built, models = self._build_all(builder, sources, watcher)
            else:
                built, models = self._build_fed(builder, sources, watcher, topics=topics, bought=bought)
            watcher.built(built)

            def rehearse(candidate: Path) -> None:
                kept.close()  # the marts are copied: whoever waits for the warehouse may have it
                _rehearse(candidate, settings)

            fingerprint = str(self._with_model(sources))
            return self._store.publish(database, built, fingerprint=fingerprint, rehearse=rehearse, models=models)

    def _bought(self, warehouse: Warehouse, topics: Collection[str] | None) -> frozenset[int]:
        """The customers whom the events name that are published now."""
        current = self._store.current()
        if current is None or SALES_EVENTS not in (topics or ()) or not self._settings.segments:
            return frozenset()
        return customers_of_events(warehouse, since=self._store.loaded_at(current, SALES_EVENTS))

    def _builder(self, watcher: Watcher) -> Builder:
        database = self._database
        project = ProjectCopy(self._settings.dbt_project_dir, database.folder / "project")
        project.renew()
        build = partial(
            build_marts,
            project.path,
            database=database,
            as_of=self._settings.as_of,
            progress=watcher.building,
        )
        return Builder(project=project, build=build)

    def _build_all(self, builder: Builder, sources: Ingredients, watcher: Watcher) -> tuple[BuildResult, Models]:
        """The build, and what its customers were put into segments and foreseen with."""
        built = builder.build()
        if not self._settings.segments:
            return built, Models()
        candidate = self._store.candidate(self._database, built, fingerprint=str(sources))
        try:
            learned = learn(candidate, self._settings, builder.project, asking=partial(_tell, watcher))
        except SegmentsError:
            # A metric that does not answer may be the cause, and the rehearsal says which one.
            with self._store.candidate(self._database, built, fingerprint=str(sources)) as folder:
                _rehearse(folder, self._settings)
            raise
        later = builder.build(select=(DEPENDENTS,)) if learned.models.segments else None
        return built.amended(later, warnings=learned.notes), learned.models

    def _build_fed(
        self,
        builder: Builder,
        sources: Ingredients,
        watcher: Watcher,
        *,
        topics: Collection[str],
        bought: Collection[int],
    ) -> tuple[BuildResult, Models]:
        """What these event tables feed; whoever bought is put into a segment anew, and everybody else stays."""
        built, models = builder.build(select=fed_by(topics)), self._store.models()
        if not bought or models.segments is None:
            return built, models
        candidate = self._store.candidate(self._database, built, fingerprint=str(sources), models=models)
        if rescore(candidate, bought, models, builder.project, self._settings, asking=partial(_tell, watcher)):
            built = built.amended(builder.build(select=(DEPENDENTS,)))
        return built, models

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep every other run off, on this machine and in the warehouse."""
        with self._folder_locked(), self._database.claimed():
            yield

    @contextmanager
    def _folder_locked(self) -> Iterator[None]:
        """Hold the lock of the publications; the system frees it however the process ends."""
        self._store.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._store.root / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise PipelineBusyError(
                "Another pipeline run is under way", hint="Wait for it to end, then run this again"
            ) from error


def _tell(watcher: Watcher, step: str) -> None:
    watcher.building(BuildProgress(step=0, steps=1, node=step))


def build_database(settings: WorkerSettings) -> BuildDatabase:
    """Where the marts of INSIGHT_WAREHOUSE_URL are built; nothing is opened.

    Raises
    ------
    SettingError
        As `workers.locations.read_location` says.
    """
    match read_location(settings.warehouse_url):
        case DuckDbFile() as file:
            return DuckDbBuild(file.path)
        case SnowflakeAccount() as account:
            return SnowflakeBuild(account, folder=settings.publication_dir.with_name("dbt-target"))


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _definitions(folder: Path) -> list[Path]:
    """The files below the folder that say what to build, in a fixed order."""
    # Relative, as the folder itself may lie below a `target`.
    found = (path for path in folder.rglob("*") if _BUILT not in path.relative_to(folder).parts)
    return sorted(path for path in found if path.suffix in _DEFINITIONS and path.is_file())


def _replay_recordings(data: Path, warehouse: Warehouse) -> Iterator[FileReport]:
    """What became of the recordings beside the files: `streams/<topic>.jsonl`."""
    for topic in TOPICS.values():
        if (path := data / RECORDINGS / f"{topic.name}.jsonl").is_file():
            started = monotonic()
            done = replay(path, topic, warehouse=warehouse)
            is_new = done.loaded or done.rejected
            yield FileReport(
                file_name=f"{RECORDINGS}/{path.name}",
                status=LoadStatus.LOADED if is_new else LoadStatus.ALREADY_LOADED,
                kind=topic.name,
                rows_read=done.messages,
                rows_loaded=done.loaded,
                rows_quarantined=done.rejected,
                seconds=monotonic() - started,
            )


def _refuse_failures(report: LoadReport) -> None:
    failed = [file for file in report.files if file.status is LoadStatus.FAILED]
    if failed:
        lines = [f"{len(failed)} of {len(report.files)} files could not be loaded, so nothing was published"]
        lines += [f"  {_failure(file)}" for file in failed]
        raise SourceError("\n".join(lines), hint="Mend or remove these files, then run this again; the rest is loaded")


def _failure(file: FileReport) -> str:
    return f"{file.file_name}: {file.error} ({file.hint})"


def _rehearse(candidate: Path, settings: WorkerSettings) -> None:
    """Open the candidate as the service will, and ask for every metric once."""
    from api.opened import open_publication  # MetricFlow, which a consumer can do without

    try:
        with ExitStack() as closing:
            sessions = None
            if isinstance(account := read_location(settings.warehouse_url), SnowflakeAccount):
                sessions = SnowflakeSessions(account, limits=_REHEARSAL)
                closing.callback(sessions.close)
            opened = open_publication(candidate, _REHEARSAL, sessions=sessions)
            closing.callback(opened.close)
            asyncio.run(opened.rehearse())
    except SemanticLayerError as error:
        raise PublicationError(
            f"The new version was refused: {error.detail}{_reason(error)}",
            hint="Mend the definition in semantic_models/ or the mart, then: insight pipeline publish",
        ) from error


def _reason(error: SemanticLayerError) -> str:
    """What the service keeps from its callers, but whoever publishes needs: the cause, such as the engine's words."""
    # In one line: DuckDB's first says what is wrong, Snowflake's last.
    words = " ".join(str(error.__cause__ or "").split())
    return f" ({words[:_LONGEST_REASON]})" if words else ""
