"""The Dockerfile, step by step, without Docker: its build stage runs in a clean folder, then what it made works.

What only Docker shows is left to the workflow `image.yml`: the base image, the user's id in it, its health check.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from dockerfile_parse import DockerfileParser

from tests.conftest import REPOSITORY
from tests.services import free_port

IS_LINUX_ROOT = sys.platform == "linux" and os.geteuid() == 0

Step = tuple[str, str]


@contextmanager
def dockerfile() -> Iterator[DockerfileParser]:
    with (REPOSITORY / "Dockerfile").open("rb") as file, tempfile.TemporaryFile() as copy:
        copy.write(file.read())
        yield DockerfileParser(fileobj=copy)


def stages() -> list[list[Step]]:
    """The steps of each stage, from its FROM on."""
    found: list[list[Step]] = []
    with dockerfile() as parser:
        for step in parser.structure:
            if step["instruction"] == "FROM":
                found.append([])
            if found:
                found[-1].append((step["instruction"], step["value"]))
    return found


def build(app: Path) -> None:
    """Take the steps of the build stage, with the folder in place of its WORKDIR."""
    python = Path(sys.executable).resolve().parent
    env = {"PATH": f"{python}:/usr/bin:/bin", "HOME": str(app), "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", "")}
    env |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_", "REQUESTS_"))}
    env.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    env = {name: value for name, value in env.items() if value}
    for instruction, value in stages()[0]:
        match instruction:
            case "COPY":
                *sources, target = value.split()
                for source in sources:
                    place = app / target
                    place = place / Path(source).name if target == "./" else place  # as Docker does
                    place.parent.mkdir(parents=True, exist_ok=True)
                    copy = ["cp", "-r", str(REPOSITORY / source), str(place)]
                    subprocess.run(copy, check=True)
            case "ENV" | "ARG":
                for setting in value.split(" ") if instruction == "ENV" else [value]:
                    name, _, text = setting.partition("=")
                    env[name] = text.strip('"')
            case "RUN":
                ran = subprocess.run(
                    ["bash", "-o", "pipefail", "-c", value],
                    cwd=app,
                    env=env,
                    check=False,
                    capture_output=True,
                    text=True,
                )
                assert ran.returncode == 0, ran.stderr
            case "FROM" | "WORKDIR" | "SHELL" | "COMMENT":
                pass
            case other:
                pytest.fail(f"{other} is new in the build stage: teach this test to take it")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the image would have at /app."""
    folder = tmp_path_factory.mktemp("image") / "app"
    folder.mkdir()
    build(folder)
    return folder


@pytest.mark.full  # as all that need what was built: minutes; `image.yml` builds the image on each push
def test_the_image_has_what_runs_and_nothing_that_builds_or_tests(app: Path) -> None:
    installed = {path.name.partition("-")[0] for path in app.glob(".venv/lib/python3*/site-packages/*.dist-info")}

    assert {"fastapi", "aiokafka", "snowflake_sqlalchemy", "psycopg", "scikit_learn"} <= installed
    assert {"pytest", "uv", "pip", "mypy", "streamlit"} & installed == set()
    assert not (app / ".tools").exists()
    assert not (app / "tests").exists()


@pytest.mark.full
def test_the_list_of_what_is_in_it_is_true(app: Path) -> None:
    listed = json.loads((app / "sbom.cdx.json").read_text())

    named = {component["name"].lower().replace("-", "_").replace(".", "_") for component in listed["components"]}
    installed = {
        path.name.partition("-")[0].lower().replace(".", "_")
        for path in app.glob(".venv/lib/python3*/site-packages/*.dist-info")
    }
    assert listed["bomFormat"] == "CycloneDX"
    assert len(named) > 100
    assert installed - named == set()


def in_image(app: Path, data: Path, command: str) -> list[str]:
    """The command as in the container: code that cannot be written, as root can mount it so; data beside it."""
    prelude = f"mount --bind {app} {app} && mount -o remount,ro,bind {app} && " if IS_LINUX_ROOT else ""
    shell = ["bash", "-c", f"{prelude}cd {data} && exec {command}"]
    return ["unshare", "--mount", *shell] if IS_LINUX_ROOT else shell


@pytest.mark.full
def test_it_publishes_serves_and_is_healthy_with_code_that_nobody_can_write(app: Path, tmp_path: Path) -> None:
    port = free_port()
    with dockerfile() as parser:
        settings = {name: value for name, value in parser.envs.items() if name.startswith("INSIGHT_")}
    settings = {name: value.replace("/data/", f"{tmp_path}/") for name, value in settings.items()}
    bin_ = f"{app}/.venv/bin"
    env = {"PATH": f"{bin_}:/usr/bin:/bin", "HOME": str(tmp_path), **settings}
    env |= {"INSIGHT_HOST": "127.0.0.1", "INSIGHT_PORT": str(port), "INSIGHT_FLIGHT_PORT": "0"}

    made = in_image(
        app,
        tmp_path,
        "sh -ec 'insight generate --out shop --scale 0.02; insight pipeline run --data shop'",
    )
    ran = subprocess.run(made, env=env, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr

    with (tmp_path / "log").open("wb") as log:
        served = subprocess.Popen(in_image(app, tmp_path, "insight serve"), env=env, stderr=log)
    try:
        assert is_healthy(env, port)
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    finally:
        served.terminate()
        assert served.wait(timeout=40) == 0


def is_healthy(env: dict[str, str], port: int) -> bool:
    """Whether the image's own health check says so within its start period."""
    (check,) = [value for instruction, value in stages()[1] if instruction == "HEALTHCHECK"]
    command = json.loads(check[check.index("[") :])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        asked = [word.replace("8000", str(port)) for word in command]
        if subprocess.run(asked, env=env, check=False, capture_output=True).returncode == 0:
            return True
        time.sleep(0.5)
    return False


def test_it_runs_as_a_user_without_rights_and_stops_by_the_signal_that_the_service_knows() -> None:
    final = dict(stages()[1])

    assert final["USER"] == "10001:10001"
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert final["ENTRYPOINT"] == '["insight"]'
