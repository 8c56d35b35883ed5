"""A small warehouse that dbt has built, and copies of the project to break."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from tests.conftest import shared
from tests.metrics.corrections import write_corrections
from tests.metrics.raw_loader import load_files
from tests.metrics.raw_streams import load_streams
from workers.generate import generate

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A copy of the dbt project beside a warehouse of its own."""

    home: Path

    @property
    def warehouse(self) -> Path:
        """The DuckDB file that the project builds in."""
        return self.home / ".insight" / "warehouse.duckdb"

    def run(self, *arguments: str) -> Mapping[str, str]:
        """Run dbt; what became of each node, by the node's name."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dbt")), *arguments, "--project-dir", "dbt", "--profiles-dir", "dbt"],
            cwd=self.home,
            # The default path, the same text in every copy: dbt would parse all again for another profile.
            env={name: value for name, value in os.environ.items() if name != "INSIGHT_DUCKDB_PATH"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        results = json.loads((self.home / "dbt" / "target" / "run_results.json").read_text())["results"]
        return {_name(result["unique_id"]): result["status"] for result in results}

    def replace(self, path: str, old: str, new: str) -> None:
        """Put `new` in the place of the one `old` in a file of the project."""
        file = self.home / path
        text = file.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
        file.write_text(text.replace(old, new))

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """The rows of a query."""
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            return connection.sql(sql).fetchall()

    def execute(self, sql: str) -> None:
        """Run statements that change the warehouse."""
        with duckdb.connect(str(self.warehouse)) as connection:
            connection.execute(sql)


def _name(unique_id: str) -> str:
    """The name that a reader knows: a data test's without its hash, a unit test's without its model."""
    kind, _, name, *rest = unique_id.split(".")
    return rest[-1] if kind == "unit_test" else name


def copy_of(project: Project, home: Path) -> Project:
    """A copy of a built project, so that what is broken there stays there."""
    shutil.copytree(project.home, home, dirs_exist_ok=True)
    return Project(home=home)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project as it is, built and tested on synthetic data with corrections and streams."""
    return Project(home=shared(tmp_path_factory, "built-by-dbt", _build) / "home")


def _build(made: Path) -> None:
    home = made / "home"
    for folder in ("dbt", "semantic_models"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("target", "logs", ".user.yml"))
    data, corrections = made / "data", made / "corrections"
    generate(data, scale=0.02, seed=11)
    write_corrections(data, corrections)
    project = Project(home=home)
    project.warehouse.parent.mkdir()
    with duckdb.connect(str(project.warehouse)) as connection:
        load_files(connection, data)
        load_files(connection, corrections)
        load_streams(connection)
    results = project.run("build")
    assert set(results.values()) <= {"success", "pass", "warn", "no-op"}


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A copy to change."""
    return copy_of(built, tmp_path / "project")
