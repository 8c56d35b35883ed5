"""Runs dbt: builds and tests the marts in the build database; alone imports dbt.

dbt runs inside this process, so that a kill ends both and no orphan keeps the warehouse locked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from workers.errors import BuildError

_SHOWN_ROWS = 5
_SHOWN_FAILURES = 5
_SHOWN_LINES = 12  # of a message; a unit test shows what it got and what it expected


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildProgress:
    """How far dbt is: the step that begins, the steps in all, and what the step does."""

    step: int
    steps: int
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build that passed its tests left: the folder of dbt's artifacts, and how the tests went."""

    target: Path
    tests_passed: int
    tests_warned: int
    warnings: tuple[str, ...]


def build_marts(
    project: Path,
    *,
    warehouse: Path,
    target: Path,
    as_of: date | None,
    progress: Callable[[BuildProgress], None],
    sources: Collection[str] | None = None,
) -> BuildResult:
    """Seeds, snapshots, models and tests, built into the warehouse file. Blocks; nobody else may have the file open.

    With `sources`, names of tables of the source `streaming`, just what they feed is built, and tested.

    Raises
    ------
    BuildError
        A model failed, or a test did; the message names it and shows rows that failed.
    """
    from dbt.cli.main import dbtRunner

    os.environ["INSIGHT_DUCKDB_PATH"] = str(warehouse.resolve())
    arguments = ["build", "--project-dir", str(project), "--profiles-dir", str(project), "--target", "duckdb"]
    arguments += ["--target-path", str(target.resolve()), "--log-path", str(target.resolve()), "--quiet", "--no-print"]
    arguments += ["--log-level", "none", "--log-level-file", "none", "--no-use-colors"]
    arguments += ["--vars", f"{{as_of: '{as_of or ''}'}}"]
    if sources is not None:
        # Fed: the models after a source, and every test that looks at one of them.
        arguments += ["--select", *(f"source:streaming.{name}+" for name in sources)]
    try:
        outcome = dbtRunner(callbacks=[partial(_hear, progress)]).invoke(arguments)
    finally:
        _release()
    results = [_Node.of(result) for result in getattr(outcome.result, "results", ())]
    if outcome.success:
        return _passed(results, target)
    if outcome.exception is not None and not results:
        raise BuildError(f"dbt could not start: {outcome.exception}", hint="Mend the dbt project: make dbt-parse")
    raise BuildError(_describe_failures(results, warehouse), hint=_HINT)


_HINT = "Mend the data or the model, then run this again. The publication before serves on."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """The outcome of one dbt node."""

    name: str
    kind: str
    status: str
    message: str
    failures_relation: str | None

    @classmethod
    def of(cls, result: Any) -> _Node:  # noqa: ANN401 - dbt's results have no stable type
        return cls(
            name=result.node.name,
            kind=str(result.node.resource_type),
            status=str(result.status),
            message=(result.message or "").strip(),
            failures_relation=getattr(result.node, "relation_name", None) if result.failures else None,
        )

    @property
    def is_test(self) -> bool:
        return self.kind in ("test", "unit_test")


def _hear(progress: Callable[[BuildProgress], None], event: Any) -> None:  # noqa: ANN401 - dbt makes these at run time
    if event.info.name == "LogStartLine":
        progress(BuildProgress(step=event.data.index, steps=event.data.total, node=event.data.description))


def _release() -> None:
    """Let go of the file: dbt-duckdb keeps its connection open for the life of the process."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    DuckDBConnectionManager.close_all_connections()  # type: ignore[no-untyped-call] # dbt-duckdb's, untyped


def _passed(nodes: list[_Node], target: Path) -> BuildResult:
    tests = [node for node in nodes if node.is_test]
    warned = [node for node in tests if node.status == "warn"]
    return BuildResult(
        target=target,
        tests_passed=sum(node.status == "pass" for node in tests),
        tests_warned=len(warned),
        warnings=tuple(f"{node.name}: {node.message}" for node in warned),
    )


def _describe_failures(nodes: list[_Node], warehouse: Path) -> str:
    failed = [node for node in nodes if node.status in ("error", "fail", "runtime error")]
    lines = [f"The build failed at {len(failed)} of {len(nodes)} steps; nothing was published"]
    for node in failed[:_SHOWN_FAILURES]:
        message = node.message.splitlines()[:_SHOWN_LINES] or [node.status]
        lines += [f"  {node.kind} {node.name}: {message[0]}", *(f"    {line}" for line in message[1:])]
        lines += [f"    {row}" for row in _failing_rows(node, warehouse)]
    return "\n".join(lines)


def _failing_rows(node: _Node, warehouse: Path) -> Iterator[Mapping[str, Any]]:
    """The first rows that dbt stored for a failed test."""
    if node.failures_relation is None:
        return
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        cursor = connection.execute(f"SELECT * FROM {node.failures_relation} LIMIT {_SHOWN_ROWS}")  # noqa: S608 - dbt's own name
        names = [column[0] for column in cursor.description or ()]
        for row in cursor.fetchall():
            yield dict(zip(names, map(str, row), strict=True))
