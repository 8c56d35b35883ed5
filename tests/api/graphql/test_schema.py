"""The schema holds all of the dbt Semantic Layer's, is exported as served, and takes every document of dbt's SDK."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from dbtsl.api.graphql.protocol import GraphQLProtocol, ProtocolOperation
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_introspection_query,
    is_non_null_type,
    parse,
    validate,
)

from api.cli import graphql_schema
from api.errors import WrongSetting
from api.graphql.schema import sdl
from tests.api.graphql.asked import data
from tests.conftest import REPOSITORY

OURS = build_schema(sdl())
DBT = build_schema(Path(__file__).with_name("dbt_semantic_layer.graphql").read_text(encoding="utf-8"))

OPERATIONS = {
    name: operation for name, operation in vars(GraphQLProtocol).items() if isinstance(operation, ProtocolOperation)
}


def fields(schema: GraphQLSchema) -> Iterator[tuple[str, str]]:
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType) and not type_.name.startswith("__"):
            yield from ((type_.name, name) for name in type_.fields)


def bare(type_: object) -> str:
    return str(type_).replace("!", "")


@pytest.mark.parametrize(("type_", "name"), sorted(fields(DBT)), ids=lambda each: each)
def test_every_field_of_dbt_is_there_and_answers_the_same_type(type_: str, name: str) -> None:
    theirs, ours = DBT.get_type(type_), OURS.get_type(type_)
    assert isinstance(theirs, GraphQLObjectType | GraphQLInterfaceType)
    assert isinstance(ours, type(theirs))
    field, found = theirs.fields[name], ours.fields[name]
    assert bare(found.type) == bare(field.type)
    # A client may rely on what is never null.
    assert not is_non_null_type(field.type) or is_non_null_type(found.type)
    for argument, expected in field.args.items():
        given = found.args[argument]
        assert bare(given.type) == bare(expected.type), argument
        # What a client may leave out there, it may leave out here.
        assert is_non_null_type(expected.type) or not is_non_null_type(given.type), argument
        assert given.default_value == expected.default_value or argument == "environmentId", argument
    for argument in found.args.keys() - field.args.keys():
        assert not is_non_null_type(found.args[argument].type), f"{argument} is one that dbt's clients do not send"


def test_every_input_enum_and_union_of_dbt_is_there() -> None:
    for name, theirs in DBT.type_map.items():
        ours = OURS.type_map[name]
        match theirs:
            case GraphQLEnumType():
                assert isinstance(ours, GraphQLEnumType)
                assert ours.values.keys() >= theirs.values.keys(), name
            case GraphQLInputObjectType():
                assert isinstance(ours, GraphQLInputObjectType)
                assert {key: str(field.type) for key, field in ours.fields.items()} == {
                    key: str(field.type) for key, field in theirs.fields.items()
                }, name
            case GraphQLUnionType():
                assert isinstance(ours, GraphQLUnionType)
                assert {type_.name for type_ in ours.types} == {type_.name for type_ in theirs.types}


def test_every_type_and_every_field_with_a_resolver_says_what_it_is() -> None:
    types = [type_ for type_ in OURS.type_map.values() if not type_.name.startswith("__")]
    builtin = {"String", "Int", "Boolean", "Date", "DateTime"}

    unions = {"EntityDimension", "QueryDetails"}
    assert [type_.name for type_ in types if not type_.description and type_.name not in builtin | unions] == []
    assert [
        name
        for type_ in ("Query", "Mutation")
        for name, field in OURS.type_map[type_].fields.items()
        if not field.description
    ] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "whole"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_document_that_the_sdk_sends_is_valid(name: str, lazy: bool) -> None:  # noqa: FBT001
    document = parse(OPERATIONS[name].get_request_text(lazy=lazy))

    assert validate(OURS, document) == []


def test_the_sdk_has_the_operations_that_we_know() -> None:
    assert OPERATIONS.keys() >= {"metrics", "dimensions", "measures", "entities", "saved_queries", "create_query"}
    assert len(OPERATIONS) == 10


def test_the_exported_schema_is_the_one_that_is_served(tmp_path: Path) -> None:
    exported = REPOSITORY / "api" / "graphql" / "schema.graphql"
    graphql_schema(out=exported, check=True)
    stale = tmp_path / "schema.graphql"
    stale.write_text(exported.read_text(encoding="utf-8").replace("Metric", "Metrik"), encoding="utf-8")

    with pytest.raises(WrongSetting, match="differs from what is served"):
        graphql_schema(out=stale, check=True)
    graphql_schema(out=stale)
    assert stale.read_text(encoding="utf-8") == exported.read_text(encoding="utf-8")


def test_the_export_is_a_command_and_checked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["insight.commands"]["graphql-schema"] == "api.cli:graphql_schema"
    assert "graphql-schema --out api/graphql/schema.graphql --check" in (REPOSITORY / "Makefile").read_text()


async def test_the_schema_tells_itself_to_who_may_ask(api: httpx.AsyncClient) -> None:
    told = await data(api, get_introspection_query())

    assert {type_["name"] for type_ in told["__schema"]["types"]} >= {"Metric", "QueryResult", "OrderByInput"}
