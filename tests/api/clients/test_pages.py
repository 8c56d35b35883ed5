"""docs/clients: every snippet runs as it stands, with the real clients, their ports apart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.server import Server
from tests.services import required_binary

PAGES = REPOSITORY / "docs" / "clients"
# What each snippet of Python tells, in the order of the pages.
TOLD = {
    "adbc": ["average_order_value", "revenue", "10585"],
    "python-sdk": ["2019-12-01", "Chicago", "2019-12-01", "Did you mean total_revenue"],
}

# What Google Sheets has around a function, as far as ours needs it.
AROUND_THE_SHEET = """
const { execFileSync } = require("node:child_process");
const PropertiesService = { getScriptProperties: () => ({ getProperty: (name) => process.env[name] }) };
const UrlFetchApp = { fetch: (url, { method, contentType, headers, payload }) => {
  const named = Object.entries({ ...headers, "Content-Type": contentType });
  const given = named.flatMap(([name, value]) => ["-H", name + ": " + value]);
  const text = execFileSync("curl", ["-s", "-X", method.toUpperCase(), url, ...given, "-d", payload]).toString();
  return { getContentText: () => text };
} };
"""


def blocks(page: str, language: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


SCRIPTS = [(page, number, text) for page in TOLD for number, text in enumerate(blocks(page, "python"))]


@pytest.fixture(scope="module")
def environment(server: Server, key: str) -> dict[str, str]:
    """What a reader of the pages has set, the ports apart."""
    (text,) = blocks("python-sdk", "sh")
    exported = dict(re.findall(r'^export (\w+)="(.*)"$', text, re.MULTILINE))
    assert exported.keys() == {"DBT_SL_GRAPHQL_URL_FORMAT", "DBT_SL_ADBC_URL_FORMAT"}
    ports = {":8000/": f":{server.port}/", ":31337": f":{server.flight_port}"}
    for shown, meant in ports.items():
        exported = {name: value.replace(shown, meant) for name, value in exported.items()}
    return os.environ | exported | {"INSIGHT_API_URL": server.url, "INSIGHT_API_KEY": key}


def run(command: list[str], environment: dict[str, str], *, expected: int = 0) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expected, done.stderr[-2_000:]
    return done.stdout + (done.stderr if expected else "")


@pytest.mark.parametrize(("page", "number", "text"), SCRIPTS, ids=[f"{page}-{number}" for page, number, _ in SCRIPTS])
def test_a_snippet_of_python_tells_what_it_says(
    environment: dict[str, str], server: Server, tmp_path: Path, page: str, number: int, text: str
) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(text.replace("localhost:31337", f"127.0.0.1:{server.flight_port}"), encoding="utf-8")

    told = run([sys.executable, "-W", "ignore", str(script)], environment)

    assert TOLD[page][number] in told


def test_every_snippet_is_run() -> None:
    run_here = {page: len(expected) for page, expected in TOLD.items()}

    assert {page.stem: len(blocks(page.stem, "python")) for page in PAGES.glob("*.md")} == {
        page.stem: run_here.get(page.stem, 0) for page in PAGES.glob("*.md")
    }


def test_the_function_of_the_sheet_fills_cells(environment: dict[str, str], tmp_path: Path) -> None:
    required_binary("curl")
    (sheet,) = blocks("google-sheets", "js")

    def called(*arguments: str, expected: int = 0) -> str:
        script = tmp_path / "sheet.js"
        given = ", ".join(map(json.dumps, arguments))
        script.write_text(f"{AROUND_THE_SHEET}{sheet}console.log(JSON.stringify(METRIC({given})))", encoding="utf-8")
        return run([required_binary("node"), str(script)], environment, expected=expected)

    head, *rows = json.loads(called("total_revenue", "customer__location"))
    assert head == ["customer__location", "total_revenue"]
    assert len(rows) == 5
    (chicago,) = (row for row in rows if row[0] == "Chicago")
    filtered = called("total_revenue", "customer__location", "{{ Dimension('customer__location') }} = 'Chicago'")
    assert json.loads(filtered) == [head, chicago]
    assert "Did you mean total_revenue" in called("total_revehue", "customer__location", expected=1)


def test_the_command_answers(environment: dict[str, str]) -> None:
    required_binary("curl")
    (command,) = blocks("google-sheets", "sh")

    answer = json.loads(run(["bash", "-c", command], environment))

    assert len(answer["data"]["createSynchronousQuery"]["rows"]) == 5


def test_every_page_is_in_the_list() -> None:
    listed = re.findall(r"\]\(([\w-]+\.md)\)", (PAGES / "README.md").read_text(encoding="utf-8"))

    assert sorted(listed) == sorted(page.name for page in PAGES.glob("*.md") if page.name != "README.md")


def test_the_statement_of_the_jdbc_page_is_one_that_its_driver_sends() -> None:
    (text,) = blocks("jdbc", "sql")
    driven = (Path(__file__).parent / "test_jdbc.py").read_text(encoding="utf-8")

    assert "SELECT customer_location, SUM(total_revenue) AS revenue FROM METRICS.ALL" in " ".join(text.split())
    assert "SELECT customer_location, SUM(total_revenue) AS revenue FROM METRICS.ALL" in driven
