"""docs/graphql.md: what it shows runs, what it refuses is refused, and its limits are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from graphql import FieldNode, OperationDefinitionNode, parse

from api.graphql import documents
from tests.api.graphql.asked import code, data, refusal
from tests.conftest import REPOSITORY
from tests.server import Server
from tests.services import required_binary

PAGE = (REPOSITORY / "docs" / "graphql.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+(?: [\w: ]+)?)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
DOCUMENTS = [(kind.removeprefix("graphql").strip(), text) for kind, text in BLOCKS if kind.startswith("graphql")]
COMMANDS = [text for kind, text in BLOCKS if kind == "sh"]
SCRIPTS = [text for kind, text in BLOCKS if kind == "python"]
(SHEET,) = (text for kind, text in BLOCKS if kind == "js")

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


@pytest.fixture(scope="module")
def environment(server: Server) -> dict[str, str]:
    """What a reader of the page has set, the port apart."""
    exported = dict(re.findall(r'^export (\w+)="(.*)"$', "\n".join(COMMANDS), re.MULTILINE))
    assert exported.keys() == {"DBT_SL_GRAPHQL_URL_FORMAT", "DBT_SL_ADBC_URL_FORMAT"}
    given = {name: value.replace(":8000/", f":{server.port}/") for name, value in exported.items()}
    return os.environ | given | {"INSIGHT_API_URL": server.url, "INSIGHT_API_KEY": server.key("reader")}


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


@pytest.mark.parametrize(
    ("kind", "text"), DOCUMENTS, ids=[f"{kind or 'answered'}-{n}" for n, (kind, _) in enumerate(DOCUMENTS)]
)
async def test_every_document_does_what_the_page_says(api: httpx.AsyncClient, kind: str, text: str) -> None:
    match kind:
        case "":
            assert all((await data(api, text)).values())
        case "polled":
            created = next(other for _, other in DOCUMENTS if "createQuery" in other)
            query_id = (await data(api, created))["createQuery"]["queryId"]
            assert (await data(api, text, queryId=query_id))["query"]["status"] != "FAILED"
        case _:
            assert code(await refusal(api, text))[1] == kind.removeprefix("refused: ")


def test_the_command_of_the_page_answers(environment: dict[str, str]) -> None:
    required_binary("curl")
    (command,) = (text for text in COMMANDS if text.startswith("curl"))

    answer = json.loads(run(["bash", "-c", command], environment))
    assert len(answer["data"]["createSynchronousQuery"]["rows"]) == 12


def test_the_function_of_the_sheet_answers(environment: dict[str, str], tmp_path: Path) -> None:
    required_binary("curl")
    script = tmp_path / "sheet.js"
    call = 'console.log(JSON.stringify(METRIC("total_revenue", "customer__location")))'
    script.write_text(AROUND_THE_SHEET + SHEET + call, encoding="utf-8")

    head, *rows = json.loads(run([required_binary("node"), str(script)], environment))
    assert head == ["customer__location", "total_revenue"]
    assert len(rows) > 2
    assert all(len(row) == 2 for row in rows)
    wrong = script.with_name("wrong.js")
    wrong.write_text(AROUND_THE_SHEET + SHEET + 'METRIC("total_revehue", "customer__location")', encoding="utf-8")
    with pytest.raises(AssertionError, match="Did you mean total_revenue"):
        run([required_binary("node"), str(wrong)], environment)


@pytest.mark.parametrize("text", SCRIPTS, ids=["metadata", "rows"])
def test_every_script_runs(environment: dict[str, str], tmp_path: Path, text: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(text, encoding="utf-8")

    told = run([sys.executable, "-W", "ignore", str(script)], environment)
    assert "total_revenue" in told


def test_the_page_shows_each_way_of_asking() -> None:
    shown = set()
    for _, text in DOCUMENTS:
        for definition in parse(text).definitions:
            assert isinstance(definition, OperationDefinitionNode)
            shown |= {each.name.value for each in definition.selection_set.selections if isinstance(each, FieldNode)}

    assert shown >= {"metrics", "dimensions", "savedQueries", "metricsPaginated", "freshness", "publications", "query"}
    assert shown >= {"createSynchronousQuery", "createQuery", "createDimensionValuesQuery", "compileSql"}


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| ([\w ,;]+?) \| ([\d,]+)(?:[,;] ([\d,]+))?(?:, ([\d,]+))?(?: of a mutation)? \|", PAGE, re.MULTILINE
    )
    numbers = {int(number.replace(",", "")) for row in rows for number in row[1:] if number}

    assert numbers >= {
        documents.MAX_CHARACTERS,
        documents.MAX_DEPTH,
        documents.MAX_ROOT_FIELDS,
        documents.MAX_COST,
        documents.MAX_REPETITION,
    }
    assert f"{documents.MAX_CHARACTERS:,}, {documents.MAX_TOKENS:,}" in PAGE
    assert f"| {documents.MAX_ALIASES}, {documents.MAX_DIRECTIVES}, {documents.MAX_FRAGMENTS} |" in PAGE


def test_codes_on_the_page_are_in_the_code() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "api" / "graphql").glob("*.py"))
    named = re.findall(r'code="(\w+)"', source)

    own = {
        "unreadable_document",
        "invalid_document",
        "document_too_complex",
        "batch_refused",
        "introspection_forbidden",
    }
    assert own | {"invalid_alias", "unknown_environment"} <= set(named)
    assert all(f"`{name}`" in PAGE for name in own | {"invalid_alias", "unknown_environment"})
