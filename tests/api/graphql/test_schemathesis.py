"""S5: Schemathesis draws documents from the schema that the service tells of itself; none of them finds a defect.

It takes any entry of `errors` for one. What REST would answer with a status of the caller's is none: most names that
are drawn do not exist, and a refusal with a code and a hint is the right answer to them.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import schemathesis
from graphql import build_schema, parse_value
from hypothesis import strategies as st
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from api.graphql.schema import sdl
from tests.server import Server

# Rows to be scored, good ones and others: Schemathesis does not know what a JSON value may be.
ROWS = (
    "{features: {recency_days: 3, frequency: 2, monetary: 10.5}}",
    "{features: {}}",
    "{transactions: []}",
    "1",
    "null",
)
schemathesis.graphql.scalar("JSON", st.sampled_from(ROWS).map(parse_value))

CI_EXAMPLES, FULL_EXAMPLES = 12, 1_000
CI_SEED = 7  # a run on every push must not fail by chance; the full one draws anew
OUR_FAULT = 500
FIELDS = {
    f"{name}.{field}"
    for name in ("Query", "Mutation")
    for field in build_schema(sdl()).type_map[name].fields  # type: ignore[attr-defined] # they have fields
}


def explored(server: Server, **settings: Any) -> tuple[Counter[str], list[str]]:
    """How often each field was asked, and what was wrong with its answers."""
    headers = {"Authorization": f"Bearer {server.key('schemathesis')}"}
    config = SchemathesisConfig.from_dict({"headers": headers, "continue-on-failure": True, **settings})
    schema = schemathesis.graphql.from_url(f"{server.url}/graphql", headers=headers, config=config)
    asked, flaws = Counter[str](), list[str]()
    for event in engine.from_schema(schema).execute():
        match event:
            case events.ScenarioFinished(recorder=recorder):
                for interaction in recorder.interactions.values():
                    asked[recorder.label] += 1
                    flaws += _flaws(recorder.label, interaction.response)
            case events.NonFatalError() | events.FatalError():
                flaws.append(repr(event))
    return asked, flaws


def _flaws(field: str, response: Any) -> list[str]:
    """What is wrong with an answer: it is none, or says that something went wrong on our side, or not what to do."""
    if response is None or response.status_code != 200:
        return [f"{field}: {response and response.status_code}"]
    refusals = [error["extensions"] for error in json.loads(response.content).get("errors", ())]
    return [
        f"{field}: {refusal}"
        for refusal in refusals
        if refusal["status"] == OUR_FAULT or not (refusal["code"] and refusal["hint"])
    ]


def generation(examples: int) -> dict[str, Any]:
    return {"mode": "positive", "max-examples": examples, "database": "none"}


def test_no_document_finds_a_defect(server: Server) -> None:
    asked, flaws = explored(server, seed=CI_SEED, generation=generation(CI_EXAMPLES))

    assert flaws == []
    assert asked.keys() == FIELDS
    assert "request_crashed" not in server.log
    assert min(asked.values()) >= CI_EXAMPLES // 2


@pytest.mark.full
@pytest.mark.timeout(7_200)
def test_none_of_a_thousand_documents_for_each_field_finds_a_defect(server: Server) -> None:
    asked, flaws = explored(server, generation=generation(FULL_EXAMPLES))

    assert flaws == []
    assert asked.keys() == FIELDS
    assert "request_crashed" not in server.log
