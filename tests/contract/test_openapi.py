"""The description is whole, it is true, and it is the one in the repository."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from api import errors
from api.rest import problems
from api.rest.contract import EXAMPLES_FILE, as_yaml
from tests.conftest import REPOSITORY
from tests.contract import requests_page
from tests.contract.provoked import Stage
from tests.contract.recorded import as_text, record
from tests.contract.served import JSON, PROBLEM, Contract, Document

# Said on the command line or at the start, never over HTTP.
NOT_SERVED = {("UnknownName", "unknown_key"), ("InvalidQuery", "invalid_policy")}


def test_what_is_served_is_what_the_repository_shows(contract: Contract) -> None:
    kept = (REPOSITORY / "openapi.yaml").read_text(encoding="utf-8")

    assert as_yaml(contract.document) == kept, "run: make openapi"


def test_the_description_is_valid_openapi(contract: Contract) -> None:
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(contract.document)] == []


def parts(document: Any) -> Iterator[Document]:
    """Every object in the document."""
    match document:
        case dict():
            yield document
            for each in document.values():
                yield from parts(each)
        case list():
            for each in document:
                yield from parts(each)


def test_every_reference_leads_somewhere(contract: Contract) -> None:
    referred = {part["$ref"] for part in parts(contract.document) if isinstance(part.get("$ref"), str)}

    assert len(referred) > 20
    for reference in referred:
        assert contract.resolved({"$ref": reference})


def test_nothing_is_declared_that_nothing_refers_to(contract: Contract) -> None:
    referred = {part["$ref"] for part in parts(contract.document) if isinstance(part.get("$ref"), str)}
    declared = {
        f"#/components/{kind}/{name}"
        for kind, components in contract.document["components"].items()
        for name in components
        if kind != "securitySchemes"
    }

    assert declared - referred == set()


def test_every_operation_says_what_it_is_for(contract: Contract) -> None:
    names = [operation.name for operation in contract.operations]
    tags = {tag["name"] for tag in contract.document["tags"] if tag["description"]}

    assert len(names) == len(set(names))
    for operation in contract.operations:
        assert operation.described["summary"], operation.name
        assert operation.described["description"].endswith("."), operation.name
        assert set(operation.described["tags"]) <= tags, operation.name
        assert operation.needs_a_key == operation.path.startswith("/v1/"), operation.name


def test_every_parameter_and_body_has_an_example(contract: Contract) -> None:
    for operation in contract.operations:
        for parameter in operation.described.get("parameters", ()):
            place = f"{operation.name}: {parameter['name']}"
            reached = parameter["in"] == "path" and operation.example is None  # by a link, as a test below says
            assert "example" in parameter or reached, f"{place} has no example"
            if "example" in parameter:
                assert contract.faults(parameter["example"], parameter["schema"]) == [], place
        if operation.takes_a_body:
            examples = operation.body_schema.get("examples")
            assert examples, f"{operation.name}: the body has no example"
            for example in examples:
                assert contract.faults(example, operation.body_schema) == [], operation.name


def test_every_answer_has_an_example_of_its_form(contract: Contract) -> None:
    for operation in contract.operations:
        for status, response in operation.described["responses"].items():
            for media_type, content in response.get("content", {}).items():
                place = f"{operation.name} {status} {media_type}"
                if media_type in (JSON, PROBLEM) and status != "503":
                    assert "example" in content, f"{place}: run make examples"
                if "example" in content and media_type != "text/csv":
                    assert contract.faults(content["example"], content["schema"]) == [], place


async def test_the_examples_are_what_the_service_answers(fresh_stage: Stage) -> None:
    assert as_text(await record(fresh_stage)) == EXAMPLES_FILE.read_text(encoding="utf-8"), "run: make examples"


async def test_the_page_of_requests_shows_what_the_service_answers(fresh_stage: Stage) -> None:
    assert await requests_page.page(fresh_stage) == requests_page.PAGE.read_text(encoding="utf-8"), "run: make examples"


def test_every_link_leads_to_an_operation_and_its_parameters(contract: Contract) -> None:
    links = [
        (operation, link)
        for operation in contract.operations
        for status in operation.statuses
        for link in operation.links(status)
    ]

    assert len(links) > 8
    for operation, link in links:
        target = contract.operation(link["operationId"])
        known = {item["name"] for place in ("path", "query") for item in target.parameters(place)}
        assert set(link.get("parameters", {})) <= known, operation.name
        assert target.takes_a_body or "requestBody" not in link, operation.name


def test_every_operation_that_needs_a_name_is_led_to(contract: Contract) -> None:
    led_to = {
        link["operationId"]
        for operation in contract.operations
        for status in operation.statuses
        for link in operation.links(status)
    }
    needing = {operation.name for operation in contract.operations if operation.parameters("path")}

    assert len(needing) >= 4
    assert needing - led_to == set(), "say where the name comes from: leads_to(…) at the route that answers it"


def test_every_operation_can_be_asked_by_its_examples_or_by_a_link(
    contract: Contract, provoked: dict[str, list[httpx.Response]]
) -> None:
    assert set(provoked) == {operation.name for operation in contract.operations}
    for name, responses in provoked.items():
        assert responses[0].status_code in (200, 202, 204), f"{name}: {responses[0].text[:300]}"


def test_an_operation_answers_each_status_that_it_is_said_to_and_no_other(
    contract: Contract, provoked: dict[str, list[httpx.Response]]
) -> None:
    said = {operation.name: sorted(operation.statuses) for operation in contract.operations}
    seen = {name: sorted({response.status_code for response in responses}) for name, responses in provoked.items()}

    assert seen == said, "describe it at the route (problems.describe), or show in provoked.py how it comes about"


def test_every_answer_is_as_described(contract: Contract, provoked: dict[str, list[httpx.Response]]) -> None:
    answers = [response for responses in provoked.values() for response in responses]

    assert len(answers) > 150
    for response in answers:
        assert contract.operation_of(response.request) is not None
        contract.hold(response)


def test_every_header_that_is_described_is_sent(contract: Contract, provoked: dict[str, list[httpx.Response]]) -> None:
    for name, responses in provoked.items():
        described = contract.operation(name).described["responses"]
        for status in {str(response.status_code) for response in responses}:
            sent = {
                header for response in responses if str(response.status_code) == status for header in response.headers
            }
            said = {header.lower() for header in described[status].get("headers", {})}
            assert said <= sent, f"{name} {status}"


def raised() -> Iterator[tuple[str, str]]:
    """Class and code of every error that the service raises; what other transports raise never reaches REST."""
    classes = {name for name, each in vars(errors).items() if isinstance(each, type) and hasattr(each, "status")}
    for file in (REPOSITORY / "api").rglob("*.py"):
        if {"flight", "graphql"} & {*file.relative_to(REPOSITORY).parts}:
            continue
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in classes:
                codes = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
                yield from ((call.func.id, code) for code in said_codes(call.func.id, codes))


def said_codes(name: str, codes: list[ast.expr]) -> list[str]:
    match codes:
        case []:
            return [getattr(errors, name).code]
        case [ast.Constant(value=str(code))]:
            return [code]
        case _:
            # The one that is put together: unknown_metric, unknown_dimension, …
            assert ast.unparse(codes[0]) == "f\"unknown_{noun.replace(' ', '_')}\"", ast.unparse(codes[0])
            return ["unknown_metric", "unknown_dimension", "unknown_saved_query"]


def test_every_status_lists_the_codes_that_are_raised_with_it() -> None:
    by_status: dict[int, set[str]] = {404: {"unknown_path"}}
    for name, code in raised():
        status = getattr(errors, name).status
        if (name, code) not in NOT_SERVED and status != 500:
            by_status.setdefault(status, set()).add(code)

    assert {status: set(codes) for status, codes in problems.CODES.items()} == by_status
    assert all(list(codes) == sorted(codes) for status, codes in problems.CODES.items() if status != 401)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_the_description_needs_no_key(stage: Stage, path: str) -> None:
    assert (await stage.stranger.get(path)).status_code == 200
