"""`insight` as its users meet it: a real process, its streams and its exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from tests.conftest import Published, service_settings

INSIGHT = str(Path(sys.executable).with_name("insight"))


def insight(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "COLUMNS": "100"}
    if path := os.environ.get("PYTHONPATH"):  # so that a worktree tests its own code
        clean["PYTHONPATH"] = path
    return subprocess.run(
        [INSIGHT, *arguments], env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(synthetic: Published, port: int) -> Iterator[subprocess.Popen[bytes]]:
    settings = service_settings(synthetic)
    environment = os.environ | {
        "INSIGHT_PUBLICATION_DIR": str(settings.publication_dir),
        "INSIGHT_STATE_URL": settings.state_url,
        "INSIGHT_PORT": str(port),
    }
    process = subprocess.Popen([INSIGHT, "serve"], env=environment, stderr=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def client(served: subprocess.Popen[bytes], key: str, port: int) -> dict[str, str]:
    """The environment of a client of the running service."""
    environment = {"INSIGHT_API_URL": f"http://127.0.0.1:{port}", "INSIGHT_API_KEY": key}
    welcome = insight("welcome", **environment)
    assert welcome.returncode == 0, welcome.stderr
    return environment


def test_the_welcome_prints_a_request_that_works_as_printed(client: dict[str, str]) -> None:
    text = insight("welcome", **client).stdout
    start = text.index("curl")
    command = text[start : text.index("\n\n", start)]

    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)

    assert len(json.loads(answer.stdout)["data"]) == 12


def test_metrics_are_listed_and_searched(client: dict[str, str]) -> None:
    names = [metric["name"] for metric in json.loads(insight("metrics", "--json", **client).stdout)]
    found = insight("metrics", "churn", **client)

    assert "total_revenue" in names
    assert "churn_rate" in found.stdout
    assert "total_revenue" not in found.stdout


@pytest.mark.parametrize("output", ["table", "csv", "json", "chart"])
def test_a_query_is_shown_in_every_format(client: dict[str, str], output: str) -> None:
    shown = insight(
        "query", "-m", "total_revenue", "-g", "customer__location", "-w", "customer__gender = F", "-f", output, **client
    )

    assert shown.returncode == 0, shown.stderr
    assert "California" in shown.stdout


def test_a_query_is_compared_with_an_earlier_range(client: dict[str, str]) -> None:
    asked = ("query", "-m", "line_count", "--start", "2019-03-01", "--end", "2019-03-31", "-f", "json")
    compared = json.loads(insight(*asked, "--compare", "previous_period", **client).stdout)
    preset = json.loads(insight("query", "-m", "line_count", "--preset", "last_month", "-f", "json", **client).stdout)

    assert compared["meta"]["compared_with"] == {"start": "2019-02-01", "end": "2019-02-28"}
    assert compared["data"][0]["line_count__previous"] > 0
    assert preset["meta"]["time_range"] == {"start": "2019-11-01", "end": "2019-11-30"}
    assert insight(*asked, "--preset", "last_month", **client).returncode == 2


def test_all_pages_are_shown_as_one(client: dict[str, str], tmp_path: Path) -> None:
    asked = ("query", "-m", "line_count", "-g", "metric_time__month")
    first = insight(*asked, "-n", "5", **client).stdout
    csv = insight(*asked, "-n", "5", "--all", "-f", "csv", **client).stdout
    documents = insight(*asked, "-n", "5", "--all", "-f", "json", **client).stdout.splitlines()

    assert "the first 5 rows" in first
    assert csv == insight(*asked, "-f", "csv", **client).stdout
    assert insight(*asked, "-n", "5", "--all", **client).stdout == insight(*asked, **client).stdout
    assert [len(json.loads(document)["data"]) for document in documents] == [5, 5, 2]
    insight(*asked, "--all", "-f", "parquet", "--out", str(tmp_path / "all.parquet"), **client)
    assert pyarrow.parquet.read_table(tmp_path / "all.parquet").num_rows == 12


def test_a_query_is_written_as_parquet(client: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "answer.parquet"

    insight("query", "-m", "total_revenue", "-g", "metric_time__month", "-f", "parquet", "--out", str(file), **client)

    assert pyarrow.parquet.read_table(file).column_names == ["metric_time__month", "total_revenue"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("query", "-m", "total_revenu"), 1, "Did you mean total_revenue"),
        (("query", "-m", "total_revenue", "--start", "2019-01-01"), 2, "--end"),
        (("query", "-m", "total_revenue", "-w", "nonsense"), 2, "is no filter"),
        (("query", "--no-such-option"), 2, "No such option"),
        (("no-such-command",), 2, "No such command"),
        (("pipeline", "run", "--data", "no/such/folder"), 1, "no/such/folder"),
        (("pipeline", "rollback", "no-such-version"), 1, "no-such-version"),
        (("keys", "revoke", "no-such-key"), 1, "no-such-key"),
        (("generate", "--out", "unused", "--scale", "0"), 1, "scale"),
    ],
)
def test_an_error_is_a_readable_line_with_a_hint(
    client: dict[str, str], tmp_path: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    places = {
        "INSIGHT_WAREHOUSE_URL": f"duckdb:///{tmp_path}/warehouse.duckdb",
        "INSIGHT_PUBLICATION_DIR": str(tmp_path / "publications"),
        "INSIGHT_STATE_URL": f"sqlite:///{tmp_path}/state.db",
    }

    ended = insight(*arguments, **client, **places)

    assert ended.returncode == code, ended.stderr
    assert text in ended.stderr
    assert "hint:" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_service_that_is_not_there_is_a_clear_error() -> None:
    ended = insight("metrics", INSIGHT_API_URL="http://127.0.0.1:9")

    assert ended.returncode == 1
    assert "cannot be reached" in ended.stderr
    assert "insight serve" in ended.stderr


def test_a_wrong_setting_stops_the_start_with_one_line() -> None:
    ended = insight("serve", INSIGHT_QUERY_TIMEOUT_S="soon")

    assert ended.returncode == 1
    assert ended.stderr.startswith("insight: INSIGHT_QUERY_TIMEOUT_S:")
    assert "soon" not in ended.stderr


def test_a_port_that_is_taken_is_a_clear_error(client: dict[str, str], port: int, tmp_path: Path) -> None:
    ended = insight("serve", "--port", str(port), INSIGHT_STATE_URL=f"sqlite:///{tmp_path}/state.db")

    assert ended.returncode == 1
    assert f"Port {port}" in ended.stderr


def test_a_debug_run_shows_the_traceback() -> None:
    assert "Traceback" in insight("--debug", "metrics", INSIGHT_API_URL="http://127.0.0.1:9").stderr


def test_an_interrupt_ends_the_service_cleanly_and_frees_the_port(
    client: dict[str, str], served: subprocess.Popen[bytes], port: int
) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz") as ready:
        assert ready.status == 200

    served.send_signal(signal.SIGINT)

    assert served.wait(timeout=10) == 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
