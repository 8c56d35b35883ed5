"""The page at GET /graphql: its examples are answered, every field has one, and it asks this service alone."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from graphql import FieldNode, OperationDefinitionNode, parse

from api.graphql.console import examples
from api.graphql.schema import core, create_schema
from tests.api.graphql.asked import data
from tests.server import Server
from tests.services import required_binary


def root_fields(document: str) -> Iterator[str]:
    for definition in parse(document).definitions:
        assert isinstance(definition, OperationDefinitionNode)
        yield from (each.name.value for each in definition.selection_set.selections if isinstance(each, FieldNode))


def test_every_field_of_the_schema_has_an_example() -> None:
    schema = core(create_schema())
    assert schema.query_type is not None
    assert schema.mutation_type is not None

    shown = {name for example in examples() for name in root_fields(example["document"])}
    assert shown == schema.query_type.fields.keys() | schema.mutation_type.fields.keys()


@pytest.mark.parametrize("example", examples(), ids=[example["title"] for example in examples()])
async def test_every_example_is_answered(api: httpx.AsyncClient, example: dict[str, str]) -> None:
    variables = {}
    if "$queryId" in example["document"]:
        (created,) = (each for each in examples() if each["title"].startswith("submit a question"))
        variables = {"queryId": (await data(api, created["document"]))["createQuery"]["queryId"]}

    assert all(found is not None for found in (await data(api, example["document"], **variables)).values())


async def test_the_page_runs_its_own_script_and_asks_this_service_alone(api: httpx.AsyncClient) -> None:
    response = await api.get("/graphql")

    assert response.status_code == 200
    assert not re.search(r"https?://|src=|href=", response.text)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    (shown,) = re.findall(r"const EXAMPLES = (\[.*\]);\n", response.text)
    assert json.loads(shown.replace("<\\/", "</")) == list(examples())


def test_a_browser_shows_it(server: Server, tmp_path: Path) -> None:
    command = [
        required_binary("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}", "--virtual-time-budget=5000",
        "--dump-dom", f"{server.url}/graphql",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    # What its script has made, which the policy lets run: the list, and the first document.
    assert done.stdout.count("<option") == len(examples())
    assert '<optgroup label="Answers">' in done.stdout
