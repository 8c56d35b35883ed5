"""Runs dbt: builds and tests the marts in the build database; alone imports dbt.

dbt runs inside this process, so that a kill ends both and no orphan keeps the warehouse locked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from workers.build_database import BuildDatabase
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
    """What a build that passed its tests left: the folder of dbt's artifacts, and each test's status by unique id."""

    target: Path
    tests: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def tests_passed(self) -> int:
        """How many tests passed."""
        return sum(status == "pass" for status in self.tests.values())

    @property
    def tests_warned(self) -> int:
        """How many tests found something that is no failure."""
        return sum(status == "warn" for status in self.tests.values())

    def amended(self, later: BuildResult | None, *, warnings: tuple[str, ...] = ()) -> BuildResult:
        """The same after a part of it was built again, with what else its reader should know."""
        tests = {**self.tests, **(later.tests if later else {})}
        told = dict.fromkeys((*self.warnings, *(later.warnings if later else ()), *warnings))  # each once
        return BuildResult(target=self.target, tests=tests, warnings=tuple(told))


def build_marts(
    project: Path,
    *,
    database: BuildDatabase,
    as_of: date | None,
    progress: Callable[[BuildProgress], None],
    select: Sequence[str] | None = None,
) -> BuildResult:
    """Seeds, snapshots, models and tests, built into the database. Blocks; nobody else may have a DuckDB file open.

    Parameters
    ----------
    select
        What to build, in dbt's words; everything, if left out. A part joins what `run_results.json` tells already.

    Raises
    ------
    BuildError
        A model failed, or a test did; the message names it and shows rows that failed.
    """
    from dbt.cli.main import dbtRunner

    target = database.folder
    os.environ.update(database.dbt_environment())
    arguments = ["build", "--project-dir", str(project), "--profiles-dir", str(project)]
    arguments += ["--target", database.dbt_target]
    arguments += ["--target-path", str(target.resolve()), "--log-path", str(target.resolve()), "--quiet", "--no-print"]
    arguments += ["--log-level", "none", "--log-level-file", "none", "--no-use-colors"]
    arguments += ["--vars", f"{{as_of: '{as_of or ''}'}}"]
    arguments += ["--select", *select] if select else []
    earlier = _run_results(target) if select else None
    try:
        outcome = dbtRunner(callbacks=[partial(_hear, progress)]).invoke(arguments)
    finally:
        database.release()
    results = [_Node.of(result) for result in getattr(outcome.result, "results", ())]
    if outcome.success:
        if earlier is not None:
            _join_run_results(target, earlier)
        return _passed(results, target)
    if outcome.exception is not None and not results:
        raise BuildError(f"dbt could not start: {outcome.exception}", hint="Mend the dbt project: make dbt-parse")
    raise BuildError(_describe_failures(results, database), hint=_HINT)


def fed_by(event_tables: Iterable[str]) -> tuple[str, ...]:
    """What these tables of the source `streaming` feed: the models after them, and every test that looks at one."""
    return tuple(f"source:streaming.{name}+" for name in event_tables)


def _run_results(target: Path) -> dict[str, Any] | None:
    """What dbt tells of the build before, None where there is none."""
    if not (file := target / _RUN_RESULTS).is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _join_run_results(target: Path, earlier: dict[str, Any]) -> None:
    """Have the file tell of the whole build: each node as it went last."""
    now = _run_results(target) or {"results": []}
    joined = {result["unique_id"]: result for result in (*earlier["results"], *now["results"])}
    (target / _RUN_RESULTS).write_text(json.dumps(now | {"results": list(joined.values())}), encoding="utf-8")


_RUN_RESULTS = "run_results.json"
_HINT = "Mend the data or the model, then run this again. The publication before serves on."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """The outcome of one dbt node."""

    unique_id: str
    name: str
    kind: str
    status: str
    message: str
    failures_relation: str | None

    @classmethod
    def of(cls, result: Any) -> _Node:  # noqa: ANN401 - dbt's results have no stable type
        return cls(
            unique_id=str(result.node.unique_id),
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


def _passed(nodes: list[_Node], target: Path) -> BuildResult:
    tests = [node for node in nodes if node.is_test]
    warned = [node for node in tests if node.status == "warn"]
    return BuildResult(
        target=target,
        tests={node.unique_id: node.status for node in tests},
        warnings=tuple(f"{node.name}: {node.message}" for node in warned),
    )


def _describe_failures(nodes: list[_Node], database: BuildDatabase) -> str:
    failed = [node for node in nodes if node.status in ("error", "fail", "runtime error")]
    lines = [f"The build failed at {len(failed)} of {len(nodes)} steps; nothing was published"]
    for node in failed[:_SHOWN_FAILURES]:
        message = node.message.splitlines()[:_SHOWN_LINES] or [node.status]
        lines += [f"  {node.kind} {node.name}: {message[0]}", *(f"    {line}" for line in message[1:])]
        lines += [f"    {row}" for row in _failing_rows(node, database)]
    return "\n".join(lines)


def _failing_rows(node: _Node, database: BuildDatabase) -> Iterator[Mapping[str, Any]]:
    """The first rows that dbt stored for a failed test."""
    if node.failures_relation is not None:
        yield from database.first_rows(node.failures_relation, count=_SHOWN_ROWS)
