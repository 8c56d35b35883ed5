"""The schema, as it is executed and as text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from inspect import cleandoc
from typing import Any

from graphql import GraphQLError, GraphQLNamedType, GraphQLSchema, print_schema
from strawberry import Schema
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.types import ExecutionContext

from api.graphql.mutations import Mutations
from api.graphql.queries import Queries
from api.graphql.question_nodes import MetricQueryParamsNode, ValuesQueryParamsNode
from api.graphql.vocabulary import SCALARS


class _ReadBefore(SchemaExtension):
    """Executes the document that has been read and checked, in place of reading it again."""

    def on_operation(self) -> Iterator[None]:
        context: Any = self.execution_context.context
        self.execution_context.graphql_document = context.document.node
        self.execution_context.validation_rules = ()
        yield


class _QuietSchema(Schema):
    """Leaves it to the transport to say in the log what went wrong."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Nothing."""


@cache
def create_schema() -> Schema:
    """The schema, ready to execute, made once; its context is an `api.graphql.endpoint.Execution`."""
    schema = _QuietSchema(
        query=Queries,
        mutation=Mutations,
        types=(MetricQueryParamsNode, ValuesQueryParamsNode),
        extensions=(_ReadBefore,),
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    _describe(core(schema))
    return schema


def core(schema: Schema) -> GraphQLSchema:
    """The schema as graphql-core knows it."""
    return schema._schema  # noqa: SLF001 - Strawberry has no other door to it, and names it so in its own guides


def sdl() -> str:
    """The schema as text."""
    return print_schema(core(create_schema())) + "\n"


def _describe(schema: GraphQLSchema) -> None:
    """Let the docstrings of types and resolvers be their descriptions."""
    for type_ in schema.type_map.values():
        definition = type_.extensions.get("strawberry-definition")
        origin = getattr(definition, "origin", None) or getattr(definition, "wrapped_cls", None)
        _describe_type(type_, definition, origin)


def _describe_type(type_: GraphQLNamedType, definition: Any, origin: type | None) -> None:  # noqa: ANN401 - of several kinds
    if origin is not None and origin.__doc__ and type_.description is None:
        type_.description = cleandoc(origin.__doc__)
    for field in getattr(definition, "fields", ()):
        resolver = getattr(field, "base_resolver", None)
        shown = getattr(type_, "fields", {}).get(_camel(field.python_name))
        if resolver is not None and shown is not None and resolver.wrapped_func.__doc__:
            shown.description = cleandoc(resolver.wrapped_func.__doc__)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
