"""What only tests run, taken from its registry once and kept outside the tree: Python programs and Java archives."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.services import absent, required_binary

Version = tuple[int, int]


def program(name: str, lock: Path, *, python: tuple[Version, Version] | None = None) -> Path:
    """A program in an environment of its own, in which there is what the lock file names and nothing else.

    Parameters
    ----------
    python
        The first version of Python that it runs on, and the first one that it does not; None for the one that runs
        the tests. Without such a Python the test is skipped even where services are required: Debian has one, and PyPI
        has none.
    """
    interpreter = sys.executable if python is None else _interpreter(*python)
    uv = str(Path(sys.executable).with_name("uv"))

    def install(folder: Path) -> None:
        _run(uv, "venv", "--quiet", "--python", interpreter, "--no-python-downloads", folder / "venv")
        _run(
            uv,
            "pip",
            "sync",
            "--quiet",
            "--compile-bytecode",
            "--require-hashes",
            "--python",
            folder / "venv/bin/python",
            lock,
        )

    return _kept(lock.stem, f"{lock.read_text()}{interpreter}", install) / "venv" / "bin" / name


def java_archive(group: str, artifact: str, version: str) -> Path:
    """An archive of Maven Central, as it is there, without what it depends on."""
    maven = required_binary("mvn")
    name = f"{group}:{artifact}:{version}"

    def fetch(folder: Path) -> None:
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
        _run(maven, "-q", "-B", f"{plugin}:copy", f"-Dartifact={name}", f"-DoutputDirectory={folder}")

    return _kept(artifact, name, fetch) / f"{artifact}-{version}.jar"


def _kept(name: str, described: str, make: Callable[[Path], None]) -> Path:
    """The folder of what is described so; made by the first who asks, on this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marketing-insight-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode != 0:
        absent(f"{Path(command[0]).name} could not fetch it: {(done.stderr or done.stdout)[-1_000:]}")


def _interpreter(first: Version, end: Version) -> str:
    for path in _interpreters():
        told = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        # Those that pyenv puts into PATH may be there and not run.
        if told.returncode == 0 and first <= tuple(map(int, told.stdout.split())) < end:
            return str(path)
    pytest.skip(f"no Python from {first[0]}.{first[1]} below {end[0]}.{end[1]} is on this machine")


def _interpreters() -> Iterator[str | Path]:
    for name in ("python3.13", "python3.12", "python3"):
        if (path := shutil.which(name)) is not None:
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(pyenv.glob("versions/3.*/bin/python3"), reverse=True)
