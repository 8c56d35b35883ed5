"""The calls of the dbt Semantic Layer, `semantic_layer.query(metrics=["total_revenue"])`, read and never run.

They look like Jinja, and what they hold is Python's syntax of calls: it is parsed as such, and of the tree just the
kinds of nodes are known that such a call is made of.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from api.errors import InvalidQuery

_OBJECT = "semantic_layer"
_MAX_NESTING = 20
_CONSTANTS = {"true": True, "false": False, "none": None}  # as Jinja writes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A metric, dimension or entity as an argument names it: `Dimension("metric_time").grain("month")`."""

    name: str
    is_metric: bool = False
    grain: str | None = None
    date_part: str | None = None
    alias: str | None = None
    is_descending: bool = False

    @property
    def text(self) -> str:
        """The name with its grain or part, as a group-by is written."""
        part = f"extract_{self.date_part}" if self.date_part else self.grain
        return f"{self.name}__{part}" if part else self.name


Argument: TypeAlias = "str | int | bool | Named | tuple[Argument, ...] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function of the semantic layer and its arguments, by name."""

    function: str
    arguments: Mapping[str, Argument]


def parse_call(text: str) -> Call:
    """The call that the text is; no name in it is looked up.

    Raises
    ------
    InvalidQuery
        It is something else, or has arguments of another form.

    Examples
    --------
    >>> parse_call('semantic_layer.query(metrics=["a"], limit=3)').arguments
    {'metrics': ('a',), 'limit': 3}
    """
    match _tree(text.strip()):
        case ast.Call(func=ast.Attribute(value=ast.Name(id=called), attr=function), args=[], keywords=keywords) if (
            called == _OBJECT
        ):
            names = [keyword.arg or "**" for keyword in keywords]
            if len(set(names)) < len(names) or "**" in names:
                raise not_understood(
                    "An argument is given twice, or without a name", hint="Write each argument once, as name=value."
                )
            values = (_value(keyword.value, 0) for keyword in keywords)
            return Call(function=function, arguments=dict(zip(names, values, strict=True)))
        case _:
            raise not_understood(
                f"{_excerpt(text)} is no call of the semantic layer",
                hint='Write {{ semantic_layer.query(metrics=["total_revenue"], group_by=["metric_time__month"]) }}.',
            )


def not_understood(detail: str, *, hint: str) -> InvalidQuery:
    """The refusal of a statement that is something else than the language knows."""
    return InvalidQuery(detail, hint=hint, code="unsupported_statement")


def _tree(text: str) -> ast.expr | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _value(node: ast.expr, nesting: int) -> Argument:
    if nesting > _MAX_NESTING:
        raise not_understood("An argument is nested too deeply", hint=f"At most {_MAX_NESTING} levels are allowed.")
    match node:
        case ast.Constant(value=str(value)):
            return _whole(value)
        case ast.Constant(value=bool() | int() | None as constant):
            return constant
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(_value(item, nesting + 1) for item in items)
        case ast.Call():
            return _named(node, nesting)
        case _:
            raise not_understood(f"{_excerpt(ast.unparse(node))} is no argument of a call", hint=_ARGUMENTS)


_ARGUMENTS = "Arguments are texts, whole numbers, True, False, lists, and Dimension, TimeDimension, Entity or Metric."


def _named(node: ast.Call, nesting: int) -> Named:
    match node.func:
        case ast.Attribute(value=ast.Call() as inner, attr=method) if nesting <= _MAX_NESTING:
            return _with(_named(inner, nesting + 1), method, _arguments(node, nesting, ("value",)))
        case ast.Name(id="Metric"):
            given = _arguments(node, nesting, ("name", "alias"))
            return Named(name=_name(given, "name"), is_metric=True, alias=_optional(given, "alias"))
        case ast.Name(id="Dimension" | "Entity"):
            given = _arguments(node, nesting, ("name", "entity_path"))
            return Named(name=_pathed(given))
        case ast.Name(id="TimeDimension"):
            given = _arguments(node, nesting, ("name", "grain", "entity_path"))
            return Named(name=_pathed(given), grain=_grain(given.get("grain")))
        case _:
            raise not_understood(f"{_excerpt(ast.unparse(node))} is no argument of a call", hint=_ARGUMENTS)


def _with(named: Named, method: str, given: Mapping[str, Argument]) -> Named:
    value = given.get("value", True)
    match method, value:
        case "grain", str() | None:
            return replace(named, grain=_grain(value))
        case "date_part", str():
            return replace(named, date_part=value.lower())
        case "descending", bool():
            return replace(named, is_descending=value)
        case _:
            raise not_understood(
                f".{method[:60]}() is not known, or has another argument",
                hint='Known are .grain("month"), .date_part("month") and .descending(True).',
            )


def _arguments(node: ast.Call, nesting: int, known: tuple[str, ...]) -> dict[str, Argument]:
    given = [*zip(known, node.args, strict=False), *((keyword.arg or "", keyword.value) for keyword in node.keywords)]
    names = [_ALSO.get(name, name) for name, _ in given]
    if len(node.args) > len(known) or len(set(names)) < len(names) or not {*names} <= {*known}:
        raise not_understood(
            f"{_excerpt(ast.unparse(node))} has other arguments than it takes", hint=f"They are {', '.join(known)}."
        )
    return {name: _value(value, nesting + 1) for name, (_, value) in zip(names, given, strict=True)}


# The names that dbt's documentation and its clients give to the same arguments.
_ALSO = {
    "metric_name": "name",
    "entity_name": "name",
    "time_dimension_name": "name",
    "time_granularity_name": "grain",
    "time_granularity": "grain",
    "is_descending": "value",
    "descending": "value",
    "date_part": "value",
}


def _name(given: Mapping[str, Argument], argument: str) -> str:
    match given.get(argument):
        case str(name):
            return name.lower()
        case _:
            raise not_understood("A name is missing, or is no text", hint=_ARGUMENTS)


def _optional(given: Mapping[str, Argument], argument: str) -> str | None:
    match given.get(argument):
        case None | str() as text:
            return text
        case _:
            raise not_understood(f"{argument} is no text", hint=_ARGUMENTS)


def _pathed(given: Mapping[str, Argument]) -> str:
    match given.get("entity_path", ()):
        case tuple() as path if all(isinstance(part, str) for part in path):
            return "__".join((*(str(part).lower() for part in path), _name(given, "name")))
        case _:
            raise not_understood("entity_path is no list of names", hint=_ARGUMENTS)


def _grain(value: Argument) -> str | None:
    """The grain; dbt's own clients print one that is missing as the text "None"."""
    match value:
        case None:
            return None
        case str():
            return None if value.lower() in ("", "none") else value.lower()
        case _:
            raise not_understood("A grain is no text", hint='Write a grain such as "month".')


def _whole(text: str) -> str:
    """The text with its surrogate pairs put together: JSON escapes what is beyond 16 bits as two halves."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as error:
        raise not_understood("A text holds half a character", hint="Send it as well-formed Unicode.") from error


def _excerpt(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")  # noqa: PLR2004 - what fits into a message
