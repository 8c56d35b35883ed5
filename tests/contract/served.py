"""The served OpenAPI description as something that can be asked by and held against: operations, links, schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema_rs

Document = dict[str, Any]

PROBLEM = "application/problem+json"
JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as the description lets one make it; `None` stands for no body."""

    path_parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation, with everything that it refers to in place."""

    path: str
    method: str
    described: Document

    @property
    def name(self) -> str:
        """Its id."""
        return str(self.described["operationId"])

    @property
    def statuses(self) -> set[int]:
        """What it is said to answer."""
        return {int(status) for status in self.described["responses"]}

    @property
    def needs_a_key(self) -> bool:
        """Whether it is said to refuse strangers."""
        return "security" in self.described

    @property
    def takes_a_body(self) -> bool:
        """Whether it reads a body."""
        return "requestBody" in self.described

    def parameters(self, place: str) -> list[Document]:
        """Its parameters in the path, the query or the headers."""
        return [item for item in self.described.get("parameters", ()) if item["in"] == place]

    @cached_property
    def body_schema(self) -> Document:
        """The schema of its body."""
        content: Document = self.described["requestBody"]["content"][JSON]["schema"]
        return content

    @property
    def example(self) -> Asked | None:
        """The request that its examples make, of the first page; None where a needed one is missing."""
        path = {item["name"]: item.get("example") for item in self.parameters("path")}
        query = {item["name"]: item["example"] for item in self.parameters("query") if "example" in item}
        query.pop("cursor", None)
        body = self.body_schema.get("examples", [None])[0] if self.takes_a_body else None
        if None in path.values() or (self.takes_a_body and body is None):
            return None
        return Asked(path_parameters=path, query=query, body=body)

    def links(self, status: int) -> Iterator[Document]:
        """Where an answer of that status leads."""
        yield from self.described["responses"].get(str(status), {}).get("links", {}).values()

    @property
    def leads_nowhere(self) -> bool:
        """Whether no answer of its leads to another operation."""
        return not any("links" in response for response in self.described["responses"].values())

    async def ask(self, client: httpx.AsyncClient, asked: Asked, **more: Any) -> httpx.Response:
        """The answer to the request."""
        path = self.path
        for name, value in asked.path_parameters.items():
            path = path.replace("{" + name + "}", quote(str(value), safe=""))
        if asked.body is not None and "content" not in more:
            more["content"] = json.dumps(asked.body).encode()
        headers = {"Content-Type": JSON} if "content" in more else {}
        headers |= dict(asked.headers) | more.pop("headers", {})
        more.setdefault("params", dict(asked.query))
        return await client.request(self.method.upper(), path, headers=headers, **more)


class Contract:
    """A description, whole."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.operations = [
            Operation(path=path, method=method, described=self._whole(operation))
            for path, item in document["paths"].items()
            for method, operation in item.items()
        ]
        self.operations.sort(key=lambda each: each.method == "delete")  # others need what it ends
        self._patterns = [
            (
                operation,
                re.compile(
                    re.sub(r"\{\w+\}", "[^/]+", re.escape(operation.path).replace(r"\{", "{").replace(r"\}", "}"))
                ),
            )
            for operation in self.operations
        ]
        self._validators: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def _whole(self, described: Document) -> Document:
        """The operation with its responses and headers in place of the references to them; schemas stay referred to."""
        responses = {status: self.resolved(response) for status, response in described["responses"].items()}
        return {**described, "responses": responses} | (
            {"requestBody": self._whole_body(described["requestBody"])} if "requestBody" in described else {}
        )

    def _whole_body(self, body: Document) -> Document:
        content = {kind: {**each, "schema": self.resolved(each["schema"])} for kind, each in body["content"].items()}
        return {**body, "content": content}

    def resolved(self, described: Document) -> Document:
        """What a reference refers to, or the thing itself."""
        if "$ref" not in described:
            return described
        found: Any = self.document
        for step in described["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return self.resolved(found)

    def operation(self, name: str) -> Operation:
        """The operation of that id."""
        return next(operation for operation in self.operations if operation.name == name)

    def operation_of(self, request: httpx.Request) -> Operation | None:
        """The operation that the request is meant for; None where the path and method are of none."""
        method = "get" if request.method == "HEAD" else request.method.lower()
        path = request.url.raw_path.decode().partition("?")[0]
        if literal := [
            operation for operation in self.operations if operation.path == path
        ]:  # they come before templates
            return next((operation for operation in literal if operation.method == method), None)
        return next(
            (found for found, pattern in self._patterns if found.method == method and pattern.fullmatch(path)), None
        )

    def faults(self, instance: object, schema: Document) -> list[str]:
        """What of the instance is not as the schema says."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return [f"{error.instance_path}: {error.message}" for error in self._validators[key].iter_errors(instance)]

    def hold(self, response: httpx.Response) -> None:
        """Fail unless the answer is one that its operation is said to give."""
        operation = self.operation_of(response.request)
        if operation is None:
            return
        said = f"{response.request.method} {response.request.url} answers {response.status_code}"
        described = operation.described["responses"].get(str(response.status_code))
        assert described is not None, f"{said}, which {operation.name} does not describe: {response.text[:300]}"
        for name, header in described.get("headers", {}).items():
            self._hold_header(name, self.resolved(header), response, said=said)
        if response.request.method == "HEAD" or not (contents := described.get("content")):
            assert response.content == b"", f"{said} with a body"
            return
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in contents, f"{said} as {media_type}, not {', '.join(contents)}"
        if media_type in (JSON, PROBLEM):
            faults = self.faults(response.json(), contents[media_type]["schema"])
            assert not faults, f"{said}, not as described: {faults[:5]}"

    def _hold_header(self, name: str, described: Document, response: httpx.Response, *, said: str) -> None:
        value = response.headers.get(name)
        if value is None:
            assert not described.get("required"), f"{said} without {name}"
            return
        typed = int(value) if described["schema"].get("type") == "integer" else value
        assert not self.faults(typed, described["schema"]), f"{said} with {name}: {value}"


def follow(link: Document, asked: Asked, response: httpx.Response, *, to: Operation) -> Asked | None:
    """The request that the link makes of an exchange; None where the answer lacks what the link needs."""
    try:
        values = {name: _value(text, asked, response) for name, text in link.get("parameters", {}).items()}
        body = _value(link["requestBody"], asked, response) if "requestBody" in link else None
    except (KeyError, IndexError, TypeError):
        return None
    if None in values.values():
        return None
    example = to.example or Asked()
    in_path = {item["name"] for item in to.parameters("path")}
    return replace(
        example,
        path_parameters=example.path_parameters | {name: value for name, value in values.items() if name in in_path},
        query={name: value for name, value in values.items() if name not in in_path},
        body=body if body is not None else example.body,
    )


def _value(expression: str, asked: Asked, response: httpx.Response) -> Any:
    """The value of a runtime expression of OpenAPI, in the forms that we use."""
    if expression == "$request.body":
        return asked.body
    if expression.startswith("$request.path."):
        return asked.path_parameters[expression.removeprefix("$request.path.")]
    assert expression.startswith("$response.body#/"), f"no such runtime expression: {expression}"
    found = response.json()
    for step in expression.removeprefix("$response.body#/").split("/"):
        found = found[int(step) if isinstance(found, list) else step]
    return found
