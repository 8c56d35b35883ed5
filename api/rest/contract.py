"""The OpenAPI description: what FastAPI derives from the routes, completed for readers and for generators.

What follows from the shape of an operation is added here, so a new route has it without a word: the problems that
every operation of its kind can answer, the headers, an example. A route itself says what is its own: which other
statuses (`api.rest.problems.describe`), which headers (`headers`), where its answer leads (`leads_to`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from fastapi import FastAPI

from api.rest.problems import CODES, DESCRIPTIONS, MEDIA_TYPE, Problem

Document: TypeAlias = dict[str, Any]

EXAMPLES_FILE = Path(__file__).with_name("examples.json")

_INTRODUCTION = """
Metrics are defined once, and every tool gets the same number. Ask for metrics by name, group them by dimensions, and
filter with typed filters; nobody writes SQL.

**Begin** with `GET /v1/metrics` (what can be asked), then `GET /v1/metrics/{metric}` (what it can be grouped by), then
`POST /v1/query`. Most tools need these three.

**Who asks.** Send a key or a token with every request under `/v1`: `Authorization: Bearer …`, or `X-API-Key: …`. The
policy decides which names exist for its role and which rows count. A name that the role may not see is unknown (404).

**What takes long** goes through `POST /v1/queries`: submit it, follow it, read its rows page by page. `POST /v1/export`
sends all the rows of an answer in one stream.

**Answers** are JSON; those with rows also come as CSV, Arrow or Parquet, as `Accept` says. A decimal is a number with
all its digits, a day is `2019-01-31`, a time is in UTC. An answer that was cut says so (`meta.truncated`).

**Errors** are `application/problem+json` (RFC 9457) with a stable `code` for programs and a `hint` for people. More
codes may come; treat one that you do not know as its status says. A defect of ours is a 500 of the same form, with the
code `internal_error`.

**Nothing is passed over:** an unknown key or parameter, and one that is given twice, is refused (422).
"""

_TAGS = [
    {"name": "catalog", "description": "What can be asked: metrics, dimensions and their values, saved queries."},
    {"name": "queries", "description": "Asking: run a query, or see its SQL."},
    {"name": "long queries", "description": "Asking what takes long: submit, follow, read page by page, end."},
    {"name": "segments", "description": "Groups of customers: how large, who is in which, and scoring."},
    {
        "name": "outlook",
        "description": "What to expect of customers and metrics, and how such expectations did before.",
    },
    {"name": "operations", "description": "For whoever runs the service: what is published, how fresh, how healthy."},
]

_HEADERS: dict[str, Document] = {
    "X-Request-Id": {
        "description": "The request's id, also in the log: the caller's own if it sent a harmless one, else a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
    "ETag": {
        "description": "The same for the same rows in the same format; send it as If-None-Match.",
        "required": True,
        "schema": {"type": "string", "pattern": '^W/"[^"]+"$'},
    },
    "Server-Timing": {
        "description": "Milliseconds spent on making SQL, on running it, and in all.",
        "required": True,
        "schema": {"type": "string", "examples": ["compile;dur=0.31, run;dur=2.1, total;dur=2.9"]},
    },
    "X-Next-Cursor": {
        "description": "`meta.next_cursor`, in every format; absent on the last page.",
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The path of what was made.",
        "required": True,
        "schema": {"type": "string", "examples": ["/v1/queries/5f0c8e0b6f7d4c0f9a3b1d2e4c6a8b0d"]},
    },
    "Content-Disposition": {
        "description": "A file name, for whoever saves it.",
        "required": True,
        "schema": {"type": "string", "pattern": "^attachment; filename="},
    },
    "Insight-Query-Id": {
        "description": "The id of this answer, also in the log and in the audit trail.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Insight-Publication": {
        "description": "The version of the data that it comes from.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Insight-As-Of": {
        "description": "The day that relative ranges count from.",
        "required": True,
        "schema": {"type": "string", "format": "date"},
    },
    "RateLimit-Limit": {
        "description": "Requests a minute that the caller may make; absent where its role has no limit.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit-Remaining": {
        "description": "Of these, what is left in this minute.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimit-Reset": {"description": "Seconds until they are all there again.", "schema": {"type": "integer"}},
    "Retry-After": {
        "description": "Seconds until another try makes sense.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "How to authenticate.",
        "required": True,
        "schema": {"type": "string", "examples": ['Bearer realm="insight"']},
    },
}

_LIMITED = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_HEADERS_OF_PROBLEMS = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After",),
    429: ("Retry-After", *_LIMITED),
    503: ("Retry-After",),
}


def describe(app: FastAPI) -> None:
    """Have the application serve the complete description, made when it is first asked for."""
    app.openapi_tags = _TAGS
    app.description = _INTRODUCTION.strip()

    @cache
    def openapi() -> Document:
        return _completed(FastAPI.openapi(app))

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def headers(*names: str) -> Document:
    """The OpenAPI entries for headers of an answer."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names if _HEADERS[name]}


def leads_to(operation: str, description: str, *, body: str | None = None, **parameters: str) -> Document:
    """The OpenAPI entry for an answer that holds what another operation needs, as runtime expressions.

    Parameters
    ----------
    operation
        The other operation's id: the name of its function.
    body
        The expression for its body.
    parameters
        The expression for each of its parameters.
    """
    link: Document = {"operationId": operation, "description": description}
    if parameters:
        link["parameters"] = parameters
    if body is not None:
        link["requestBody"] = body
    return {operation: link}


def links(*led: Document, status: int = 200) -> dict[int | str, Document]:
    """The OpenAPI entries for where an answer leads."""
    return {status: {"links": {name: link for each in led for name, link in each.items()}}}


def as_yaml(document: Document) -> str:
    """The description as text for people and for a diff: lines stay lines, and nothing is said by reference."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Path, method and description of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _completed(document: Document) -> Document:
    examples = json.loads(EXAMPLES_FILE.read_text(encoding="utf-8"))
    document["info"]["license"] = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
    used: set[int] = set()
    for _, _, operation in operations(document):
        operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
        _complete_parameters(operation)
        used |= _complete_problems(operation)
        _complete_answers(operation, examples["answers"].get(operation["operationId"], {}))
    components = document["components"]
    components["headers"] = _HEADERS
    components["responses"] = {
        _problem_name(status): _problem_response(status, examples["problems"].get(str(status)))
        for status in sorted(used)
    }
    _complete_schemas(components["schemas"])
    return document


def _complete_parameters(operation: Document) -> None:
    for parameter in operation.get("parameters", ()):
        schema = _without_null(parameter["schema"])
        schema.pop("description", None)  # the parameter has it
        if examples := schema.pop("examples", None):
            parameter["example"] = examples[0]
        parameter["schema"] = schema


def _without_null(schema: Document) -> Document:
    """The schema of a value that may be left out; in a URL or a header there is no null."""
    kinds: list[Document] = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return dict(schema)
    rest: Document = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | kinds[0]


def _complete_problems(operation: Document) -> set[int]:
    """Refer to the problems that the operation can answer; returns their statuses."""
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own, in a form that is never sent
    described = {int(status) for status, response in responses.items() if MEDIA_TYPE in response.get("content", {})}
    statuses = described | set(_problems_by_shape(operation))
    for status in sorted(statuses):
        responses[str(status)] = {"$ref": f"#/components/responses/{_problem_name(status)}"}
    operation["responses"] = dict(sorted(responses.items()))
    return statuses


def _problems_by_shape(operation: Document) -> Iterator[int]:
    """What follows from a key being needed, a body or a cursor being read; a parameter too many can come to any."""
    if "security" in operation:
        yield from (401, 403, 429, 503)
    if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", ())):
        yield 400
    if "requestBody" in operation:
        yield from (400, 408, 413, 415)
    yield 422


def _complete_answers(operation: Document, examples: Document) -> None:
    for response in operation["responses"].values():
        if "$ref" in response:
            continue
        if response["description"] == "Successful Response":
            response["description"] = operation.get("description", operation["summary"])
        usual = ("X-Request-Id", *(_LIMITED if "security" in operation else ()))
        response["headers"] = headers(*usual) | response.get("headers", {})
        # JSON first, as readers take the first to be the usual one.
        contents = sorted(response.get("content", {}).items(), key=lambda item: item[0] != "application/json")
        for media_type, content in contents:
            if media_type in examples:
                content["example"] = examples[media_type]
        if contents:
            response["content"] = dict(contents)


def _problem_name(status: int) -> str:
    return f"Problem{status}"


def _problem_response(status: int, example: Document | None) -> Document:
    narrowed = {"status": {"const": status}, "code": {"enum": list(CODES[status])}}
    content: Document = {
        "schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "object", "properties": narrowed}]}
    }
    if example is not None:
        content["example"] = example
    return {
        "description": DESCRIPTIONS[status],
        "headers": headers("X-Request-Id", *_HEADERS_OF_PROBLEMS.get(status, ())),
        "content": {MEDIA_TYPE: content},
    }


def _complete_schemas(schemas: Document) -> None:
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, in a form that is never sent
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for schema in schemas.values():
        _simplify(schema)


def _simplify(schema: object) -> None:
    """Say `anyOf` for alternatives that exclude one another by their keys; what is none of them is easier to see."""
    match schema:
        case dict():
            if "oneOf" in schema:
                schema["anyOf"] = schema.pop("oneOf")
            for part in schema.values():
                _simplify(part)
        case list():
            for part in schema:
                _simplify(part)
