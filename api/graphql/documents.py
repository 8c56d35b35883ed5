"""Documents as clients send them: refused before anything is resolved if answering could cost too much.

Everything is decided by counting, in time that grows with the length of the document alone; the rules of GraphQL
itself, some of which compare each field with each other, see only what has passed.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
    validate,
)

from api.errors import InvalidQuery, UnreadableRequest

MAX_CHARACTERS = 32_000
MAX_TOKENS = 2_000
MAX_DEPTH = 8
MAX_ALIASES = 15
MAX_DIRECTIVES = 50
MAX_FRAGMENTS = 20
MAX_ROOT_FIELDS = 15
MAX_REPETITION = 4_000  # the squares of how often each name is selected: what comparing fields with each other costs
MAX_COST = 30_000  # dbt's own largest document costs some 18,000
MAX_INTROSPECTION_COST = 200_000  # the usual question for a whole schema costs some 164,000

_INTROSPECTION = frozenset({"__schema", "__type"})
# How many items a list is taken to have; what is asked of each item costs as often.
_ITEMS = {"metrics": 50, "items": 50, "metricsForDimensions": 50, "dimensions": 30, "entities": 10, "measures": 5}
_ITEMS |= {"savedQueries": 10, "publications": 10, "sources": 10, "columns": 10, "groupBy": 8, "inputMeasures": 5}
_ITEMS |= {"rows": 100}
_INTROSPECTED_ITEMS = {"types": 80, "fields": 10, "inputFields": 8, "enumValues": 10, "args": 4, "directives": 8}

_REMEMBERED = 128
_REMEMBERED_CHARACTERS = 8_000
_SHOWN_FAULTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedDocument:
    """A document that may be executed."""

    node: DocumentNode
    introspects: bool
    root_fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """What a selection comes to, fragments put in their places."""

    depth: int = 0
    aliases: int = 0
    cost: int = 0
    introspection_cost: int = 0


class Documents:
    """Reads documents, and remembers those that were sound: clients send the same few again and again."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._sound: OrderedDict[str, CheckedDocument] = OrderedDict()

    def read(self, text: str) -> CheckedDocument:
        """The document in the text.

        Raises
        ------
        UnreadableRequest
            The text is too long, or no document.
        InvalidQuery
            The document is too large or too deep, or does not fit the schema.
        """
        if (known := self._sound.get(text)) is not None:
            self._sound.move_to_end(text)
            return known
        checked = _checked(_parsed(text))
        self._validate(checked.node)
        if len(text) <= _REMEMBERED_CHARACTERS:
            self._sound[text] = checked
            if len(self._sound) > _REMEMBERED:
                self._sound.popitem(last=False)
        return checked

    def _validate(self, node: DocumentNode) -> None:
        # Suggestions would tell names of the schema to those who may not ask for it.
        faults = validate(self._schema, node, max_errors=_SHOWN_FAULTS, hide_suggestions=True)
        if faults:
            raise InvalidQuery(
                "; ".join(f"{fault.message[:300]}{_place(fault)}" for fault in faults[:_SHOWN_FAULTS]),
                hint="Compare the document with the schema: docs/graphql.md says where it is.",
                code="invalid_document",
            )


def _parsed(text: str) -> DocumentNode:
    _refuse_beyond(len(text), MAX_CHARACTERS, "characters")
    try:
        return parse(text, max_tokens=MAX_TOKENS)
    except GraphQLError as error:
        if f"more than {MAX_TOKENS} tokens" in error.message:
            raise _too_complex(f"The document has more than {MAX_TOKENS} tokens") from error
        raise UnreadableRequest(
            f"The document cannot be read: {error.message[:300]}{_place(error)}",
            hint="Send a GraphQL document as query.",
            code="unreadable_document",
        ) from error
    except RecursionError as error:
        raise _too_complex("The document has too many brackets within each other") from error


def _place(error: GraphQLError) -> str:
    return f" (line {error.locations[0].line}, column {error.locations[0].column})" if error.locations else ""


def _checked(node: DocumentNode) -> CheckedDocument:
    fragments = {each.name.value: each for each in node.definitions if isinstance(each, FragmentDefinitionNode)}
    operations = [each for each in node.definitions if isinstance(each, OperationDefinitionNode)]
    _refuse_beyond(
        sum(isinstance(each, FragmentDefinitionNode) for each in node.definitions), MAX_FRAGMENTS, "fragments"
    )
    fields = list(_fields(node))
    _refuse_beyond(_directives(node), MAX_DIRECTIVES, "directives")
    names = Counter(each.alias.value if each.alias else each.name.value for each in fields)
    if sum(count * count for count in names.values()) > MAX_REPETITION:
        raise _too_complex("The document selects the same names too often")
    measure = _Measure(fragments)
    for operation in operations:
        _refuse_large(measure.of(operation.selection_set), measure.root_fields(operation), operation)
    return CheckedDocument(
        node=node,
        introspects=any(each.name.value in _INTROSPECTION for each in fields),
        root_fields=tuple(name for operation in operations for name in measure.root_fields(operation)),
    )


def _refuse_large(size: _Size, root_fields: list[str], operation: OperationDefinitionNode) -> None:
    _refuse_beyond(size.depth, MAX_DEPTH, "levels of fields")
    _refuse_beyond(size.aliases, MAX_ALIASES, "aliases")
    _refuse_beyond(size.cost, MAX_COST, "values that it would answer, by our estimate,")
    _refuse_beyond(size.introspection_cost, MAX_INTROSPECTION_COST, "values of the schema that it would answer")
    # One question, so that the audit has one record of it and the gate has counted it.
    most = 1 if operation.operation is OperationType.MUTATION else MAX_ROOT_FIELDS
    _refuse_beyond(len(root_fields), most, "fields of a mutation" if most == 1 else "fields at the top")


def _refuse_beyond(count: int, most: int, noun: str) -> None:
    if count > most:
        raise _too_complex(f"The document has {count:,} {noun}, and may have {most:,}")


def _too_complex(detail: str) -> InvalidQuery:
    return InvalidQuery(detail, hint="Ask for less, or in several requests.", code="document_too_complex")


@dataclass(slots=True)
class _Measure:
    """Measures selections; each fragment once, however often it is spread."""

    fragments: Mapping[str, FragmentDefinitionNode]
    _known: dict[tuple[str, bool], _Size] = field(default_factory=dict)
    _open: set[str] = field(default_factory=set)

    def of(self, selections: SelectionSetNode | None, *, is_schema: bool = False) -> _Size:
        depth = aliases = cost = introspection_cost = 0
        for each in selections.selections if selections else ():
            size = self._one(each, is_schema=is_schema)
            depth, aliases = max(depth, size.depth), aliases + size.aliases
            cost, introspection_cost = cost + size.cost, introspection_cost + size.introspection_cost
        return _Size(depth=depth, aliases=aliases, cost=cost, introspection_cost=introspection_cost)

    def root_fields(self, operation: OperationDefinitionNode) -> list[str]:
        """The fields at the top of the operation, those of fragments among them."""
        found: list[str] = []
        pending, seen = list(operation.selection_set.selections), set[str]()
        while pending and len(found) <= MAX_ROOT_FIELDS:
            match pending.pop(0):
                case FieldNode(name=name):
                    found.append(name.value)
                case InlineFragmentNode(selection_set=inner):
                    pending = [*inner.selections, *pending]
                case FragmentSpreadNode(name=name) if name.value in self.fragments and name.value not in seen:
                    seen.add(name.value)
                    pending = [*self.fragments[name.value].selection_set.selections, *pending]
        return found

    def _one(self, node: Node, *, is_schema: bool) -> _Size:
        match node:
            case FieldNode():
                return self._field(node, is_schema=is_schema or node.name.value in _INTROSPECTION)
            case InlineFragmentNode(selection_set=inner):
                return self.of(inner, is_schema=is_schema)
            case FragmentSpreadNode(name=name) if name.value in self.fragments:
                return self._fragment(name.value, is_schema=is_schema)
            case _:
                return _Size()  # a fragment that is missing is refused by the rules of GraphQL

    def _field(self, node: FieldNode, *, is_schema: bool) -> _Size:
        inner = self.of(node.selection_set, is_schema=is_schema)
        items = (_INTROSPECTED_ITEMS if is_schema else _ITEMS).get(node.name.value, 1)
        return _Size(
            depth=0 if is_schema else inner.depth + 1,
            aliases=inner.aliases + (node.alias is not None),
            cost=0 if is_schema else 1 + items * inner.cost,
            introspection_cost=(1 if is_schema else 0) + items * inner.introspection_cost,
        )

    def _fragment(self, name: str, *, is_schema: bool) -> _Size:
        if name in self._open:
            raise _too_complex(f"The fragment {name[:100]} spreads itself")
        if (name, is_schema) not in self._known:
            self._open.add(name)
            self._known[name, is_schema] = self.of(self.fragments[name].selection_set, is_schema=is_schema)
            self._open.discard(name)
        return self._known[name, is_schema]


def _fields(node: DocumentNode) -> Iterator[FieldNode]:
    """Every field that is written, each once."""
    pending: list[SelectionSetNode | None] = [
        each.selection_set
        for each in node.definitions
        if isinstance(each, OperationDefinitionNode | FragmentDefinitionNode)
    ]
    while pending:
        selections = pending.pop()
        for each in selections.selections if selections else ():
            if isinstance(each, FieldNode):
                yield each
            if isinstance(each, FieldNode | InlineFragmentNode):
                pending.append(each.selection_set)


def _directives(node: DocumentNode) -> int:
    """How many directives are written, wherever they may stand."""
    count, token = 0, node.loc.start_token if node.loc else None
    while token is not None:
        count += token.value is None and token.kind.value == "@"
        token = token.next
    return count
