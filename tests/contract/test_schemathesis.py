"""S5: Schemathesis looks for requests that break the contract: every phase, every check, as several roles.

No check is switched off. One is told of statuses: `positive_data_acceptance` takes a 422 for an answer, as a question
may be well formed and have no answer (a dimension that does not join, a text operator on a number), a 400, as a
cursor is ours and JSON Schema cannot say so, and a 409, as a submitted query may not have its rows yet. What it would
miss by that, `well_formed_is_not_called_malformed` finds: data that the schema allows is never refused as malformed,
nor as unreadable.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI, HTTPException, Response
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events
from schemathesis.python.asgi import shutdown_lifespans

from api.keys import ApiKeys
from api.main import create_app
from api.settings import Settings
from api.state import open_state
from tests.conftest import Published, service_settings

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  viewer: {metrics: ["*"], dimensions: ["*"], hidden: [total_revenue, "product__*"], hashed: [customer]}
  regional:
    metrics: ["*"]
    dimensions: ["*"]
    see_sql: true
    max_rows: 100
    rows: [{field: customer__location, op: in, claim: regions}]
"""
# Where an answer to a submission leads, and what must have been seen there.
LONG_QUERIES = {
    "POST /v1/queries": 202,
    "GET /v1/queries/{query_id}": 200,
    "GET /v1/queries/{query_id}/results": 200,
    "DELETE /v1/queries/{query_id}": 204,
}
# One that was waiting or running when it was deleted can be read on, as cancelled.
STAYS_READABLE = [
    {"include-name": name, "checks": {"use_after_free": {"enabled": False}}}
    for name in LONG_QUERIES
    if "{query_id}" in name
]
ROLES = ("admin", "viewer", "regional")

CI_EXAMPLES = 50
FULL_EXAMPLES = 1_000
CI_SEED = 7  # a run on every push must not fail by chance; the full one draws anew, and says its seed


@schemathesis.check
def well_formed_is_not_called_malformed(ctx: Any, response: Any, case: Any) -> None:
    """What the schema allows is not refused as something that it does not allow."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "json" in response.headers.get("content-type", [""])[0] and response.status_code in (400, 422):
        code = response.json()["code"]
        assert code not in ("malformed_request", "unreadable_request"), f"{code}: {response.json()['detail']}"


@dataclass(frozen=True, kw_only=True)
class Explorable:
    """A service, and who may explore it."""

    app: FastAPI
    settings: Settings
    keys_file: Path
    operations: frozenset[str]


@dataclass(kw_only=True)
class Outcome:
    """What came of it."""

    statuses: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # phase, operation, status
    flaws: list[str] = field(default_factory=list)

    def take(self, event: Any) -> None:
        """Add what the event of the engine says."""
        match event:
            case events.ScenarioFinished(phase=phase, recorder=recorder):
                for case, interaction in recorder.interactions.items():
                    if interaction.response is not None:
                        operation = recorder.cases[case].value.operation.label
                        self.statuses[phase.value, operation, interaction.response.status_code] += 1
                for case, checks in recorder.checks.items():
                    answer = recorder.interactions[case].response
                    self.flaws += [_flaw(phase.value, check, answer) for check in checks if check.failure_info]
            case events.NonFatalError() | events.FatalError():
                self.flaws.append(repr(event))

    def asked(self, phase: str) -> set[str]:
        """The operations that were asked in the phase."""
        return {operation for each, operation, _ in self.statuses if each == phase}

    def share(self, operation: str, status: int) -> float:
        """How much of what the operation answered had the status."""
        answers: Counter[int] = Counter()
        for (_, name, each), count in self.statuses.items():
            answers[each] += count if name == operation else 0
        return answers[status] / answers.total()

    @property
    def report(self) -> str:
        """Its flaws, the first ones in full."""
        return f"{len(self.flaws)} flaws\n" + "\n\n".join(sorted(set(self.flaws))[:12])


def _flaw(phase: str, check: Any, answer: Any) -> str:
    failure = check.failure_info.failure
    content = answer.content[:500] if answer is not None else b""
    return f"{check.name} in {phase}: {failure.title}\n{failure.message}\n{check.failure_info.code_sample}\n{content}"


def explored(explorable: Explorable, role: str, document: dict[str, Any] | None = None, **settings: Any) -> Outcome:
    """What the role finds; `settings` are Schemathesis's own."""
    config = SchemathesisConfig.from_dict(
        {
            "auth": {"wfc": {"path": str(explorable.keys_file), "user": role, "peers": list(ROLES)}},
            "checks": {
                "positive_data_acceptance": {
                    "expected-statuses": ["2xx", "304", "400", "401", "403", "404", "409", "422"],
                },
                # Its own list lacks 413: too many rows may be too many bytes first. And no fault of ours is a refusal.
                "negative_data_rejection": {
                    "expected-statuses": ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "429"],
                },
            },
            "continue-on-failure": True,
            **settings,
            "operations": [*settings.get("operations", ()), *STAYS_READABLE],
        }
    )
    schema = schemathesis.openapi.from_dict(document or explorable.app.openapi(), config=config)
    schema.app = explorable.app
    outcome = Outcome()
    for event in engine.from_schema(schema).execute():
        outcome.take(event)
    return outcome


def generation(examples: int) -> dict[str, Any]:
    return {"mode": "all", "max-examples": examples, "database": "none"}


def without_coverage(operations: Any) -> list[dict[str, Any]]:
    """Schemathesis's settings that leave out the phase for the operations."""
    return [{"include-name": name, "phases": {"coverage": {"enabled": False}}} for name in sorted(operations)]


def sharing_a_body(document: dict[str, Any]) -> set[str]:
    """The operations whose body another one takes too: all but the first by name of each body."""
    takers: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "requestBody" in operation:
                body = json.dumps(operation["requestBody"]["content"], sort_keys=True)
                takers.setdefault(body, []).append(f"{method.upper()} {path}")
    return {name for names in takers.values() for name in sorted(names)[:-1]}


METRICS = ["line_count", "total_revenue", "average_order_value", "revenue_growth_mom"]
GROUP_BYS = ["metric_time__month", "customer__location", "customer", "product__category", "calendar_date__is_weekend"]
REAL_NAMES = {
    "metrics": METRICS,
    "group_by": GROUP_BYS,
    "field": [*GROUP_BYS, "line_count"],
    "metric": METRICS,
    "dimension": GROUP_BYS,
    "name": ["revenue_by_month", "segment_overview"],
}


def with_real_names(document: dict[str, Any]) -> dict[str, Any]:
    """The description, narrowed to names that exist; what it allows, the whole one allows too."""
    narrowed = deepcopy(document)
    for name, schema in narrowed["components"]["schemas"].items():
        for field_name, described in schema.get("properties", {}).items() if name.endswith("Body") else ():
            if field_name in ("metrics", "group_by"):
                described |= {
                    "items": {"enum": REAL_NAMES[field_name]},
                    "uniqueItems": True,
                    "minItems": 1,
                    "maxItems": 2,
                }
                schema["required"] = ["metrics"]
            elif described.get("type") == "array":
                described["maxItems"] = 1
            elif field_name == "field":
                schema["properties"][field_name] = {"enum": REAL_NAMES[field_name]}
    for item in narrowed["paths"].values():
        for parameter in (each for operation in item.values() for each in operation.get("parameters", ())):
            if parameter["name"] in REAL_NAMES:
                parameter["schema"] = {"enum": REAL_NAMES[parameter["name"]]}
    return narrowed


@pytest.fixture(scope="module")
def explorable(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorable]:
    """The service over synthetic data, under a policy; Schemathesis starts it in a loop of its own."""
    home = tmp_path_factory.mktemp("schemathesis")
    (home / "policy.yml").write_text(POLICY)
    settings = service_settings(
        synthetic,
        policy_file=home / "policy.yml",
        state_url=f"sqlite:///{home / 'state.db'}",
        deferred_waiting_each=100_000,  # it submits faster than they run
        deferred_waiting=100_000,
    )
    state = open_state(settings.state_url)
    claims = {"regions": ("California", "Chicago")}
    made = {role: ApiKeys(state).create(role, role=role, claims=claims) for role in ROLES}
    state.dispose()
    entries = [
        {"name": role, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]}
        for role, key in made.items()
    ]
    (home / "keys.json").write_text(json.dumps({"auth": entries}))
    app = create_app(settings)
    operations = [f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item]
    yield Explorable(app=app, settings=settings, keys_file=home / "keys.json", operations=frozenset(operations))
    shutdown_lifespans()


@pytest.mark.full  # two minutes, and the walk through a long query is not found every time
def test_the_first_role_finds_no_flaw_in_any_phase(explorable: Explorable) -> None:
    # Coverage goes through a body's schema once, which takes 15 s, and not once more for every route that takes it.
    shared = sharing_a_body(explorable.app.openapi())

    outcome = explored(
        explorable, "admin", seed=CI_SEED, generation=generation(CI_EXAMPLES), operations=without_coverage(shared)
    )

    assert outcome.flaws == [], outcome.report
    assert outcome.asked("fuzzing") == explorable.operations
    assert outcome.asked("examples") >= shared
    assert outcome.asked("coverage") == explorable.operations - shared
    assert outcome.asked("stateful") >= {"POST /v1/query", "GET /v1/dimensions/{dimension}/values", *LONG_QUERIES}
    assert all(outcome.statuses["stateful", name, status] for name, status in LONG_QUERIES.items())


# One role is enough for each push; the other's turn there is the test below, with names that exist.
@pytest.mark.parametrize(
    "role", [pytest.param(role, marks=pytest.mark.full) if role == "regional" else role for role in ROLES[1:]]
)
def test_no_other_role_finds_a_flaw(explorable: Explorable, role: str) -> None:
    outcome = explored(
        explorable,
        role,
        seed=CI_SEED,
        generation=generation(CI_EXAMPLES),
        operations=without_coverage(explorable.operations),
    )

    assert outcome.flaws == [], outcome.report
    assert outcome.asked("fuzzing") == explorable.operations


def test_no_role_finds_a_flaw_by_names_that_exist(explorable: Explorable) -> None:
    # Names drawn at random exist so seldom that without this few questions would come as far as the warehouse.
    outcome = explored(
        explorable,
        "regional",
        document=with_real_names(explorable.app.openapi()),
        seed=CI_SEED,
        generation=generation(CI_EXAMPLES) | {"mode": "positive"},
        phases={"coverage": {"enabled": False}},
    )

    assert outcome.flaws == [], outcome.report
    assert outcome.share("POST /v1/query", 200) > 0.5


@pytest.mark.full
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("role", ROLES)
def test_no_role_finds_a_flaw_in_a_thousand_examples(explorable: Explorable, role: str) -> None:
    outcome = explored(explorable, role, generation=generation(FULL_EXAMPLES))

    assert outcome.flaws == [], outcome.report
    assert outcome.asked("fuzzing") == outcome.asked("coverage") == explorable.operations


def declared_but_open(app: FastAPI) -> None:
    """A route that says it needs a key, and does not look at it."""

    @app.get("/v1/open", openapi_extra={"security": [{"HTTPBearer": []}]})
    async def open_to_all() -> dict[str, str]:
        return {"secret": "42"}


def not_as_described(app: FastAPI) -> None:
    """A route that answers something else than it says."""

    @app.get("/v1/other", response_model=list[int])
    async def other() -> Response:
        return Response('{"not": "a list"}', media_type="application/json")


def failing_on_some(app: FastAPI) -> None:
    """A route that fails on one value of five."""

    @app.get("/v1/fifths/{number}")
    async def fifths(number: int) -> int:
        if number % 5 == 0:
            raise HTTPException(500)
        return number


@pytest.mark.parametrize(
    ("add", "check"),
    [
        (declared_but_open, "ignored_auth"),
        (not_as_described, "response_schema_conformance"),
        (failing_on_some, "not_a_server_error"),
    ],
)
def test_a_flaw_that_is_there_is_found(explorable: Explorable, add: Callable[[FastAPI], None], check: str) -> None:
    app = create_app(explorable.settings)
    add(app)
    path = next(iter(set(app.openapi()["paths"]) - set(explorable.app.openapi()["paths"])))
    document = {**app.openapi(), "paths": {path: app.openapi()["paths"][path]}}

    outcome = explored(
        replace(explorable, app=app), "admin", document=document, seed=CI_SEED, generation=generation(CI_EXAMPLES)
    )

    assert any(flaw.startswith(check) for flaw in outcome.flaws), outcome.report
