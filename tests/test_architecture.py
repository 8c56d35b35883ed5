"""The shape of the code: who imports whom, and how large a piece may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dbt.version
import pytest

from tests.conftest import REPOSITORY

ROOTS = ("api", "workers", "ml", "clients", "outgoing")
MAX_FUNCTION_LINES = 40
MAX_FILE_LINES = 600


def sources() -> Iterator[Path]:
    for root in ROOTS:
        yield from (REPOSITORY / root).rglob("*.py")


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Each function of the file with its lines, decorators and docstring left out."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - (len(text.splitlines()) if text else 0)


def test_the_roots_hold_code() -> None:
    assert {file.relative_to(REPOSITORY).parts[0] for file in sources()} >= {"api", "workers", "clients", "outgoing"}


def test_the_dbt_project_is_no_python_package() -> None:
    # It would shadow the dbt package.
    assert list((REPOSITORY / "dbt").glob("**/__init__.py")) == []
    assert not Path(dbt.version.__file__).is_relative_to(REPOSITORY / "dbt")


def test_the_semantic_models_are_yaml_alone() -> None:
    files = [path for path in (REPOSITORY / "semantic_models").rglob("*") if path.is_file()]

    assert files
    assert [path.name for path in files if path.suffix != ".yml"] == []


def test_imports_keep_to_the_layers() -> None:
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout[-3_000:]
    assert "0 broken" in lint.stdout


@pytest.mark.parametrize("root", ROOTS)
def test_every_function_fits_on_a_screen(root: str) -> None:
    long = [
        f"{file.relative_to(REPOSITORY)}:{name} has {lines} lines"
        for file in (REPOSITORY / root).rglob("*.py")
        for name, lines in functions(file)
        if lines > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_file_is_too_long() -> None:
    lengths = {file.relative_to(REPOSITORY): len(file.read_text(encoding="utf-8").splitlines()) for file in sources()}

    assert {str(file): lines for file, lines in lengths.items() if lines > MAX_FILE_LINES} == {}
