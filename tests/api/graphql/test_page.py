"""docs/graphql.md: what it shows runs, what it refuses is refused, and its limits are those of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess

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


@pytest.fixture(scope="module")
def environment(server: Server) -> dict[str, str]:
    """What a reader of the page has set."""
    return os.environ | {"INSIGHT_API_URL": server.url, "INSIGHT_API_KEY": server.key("reader")}


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
