"""Frozen values as JSON and back, without loss: a question that waits in the state database, what an answer said.

What JSON knows is written as it is; everything else is an object with one key, the name of its type:

    Comparison(field="discount_rate", operator=Operator.GT, values=(Decimal("0.10"),))
    {"Comparison": {"field": "discount_rate", "operator": {"Operator": "gt"}, "values": [{"Decimal": "0.10"}]}}

Reading follows the annotations of the dataclasses, so only the types that they name can be read, and a new field needs
no code here. A field that has its default is left out: a new field changes no document that was written without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from enum import Enum
from types import UnionType
from typing import Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
T = TypeVar("T")

# Any, from here on: an annotation (`str | None`, `tuple[Filter, ...]`) has no better type, nor has what it describes.


def document(value: Any) -> Json:  # noqa: ANN401
    """The value as JSON; equal in every process. TypeError for a type that cannot be read back."""
    match value:
        case Enum():
            return {type(value).__name__: value.value}
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return {"Decimal": str(value)}
        case date():  # a datetime is one
            return {type(value).__name__: value.isoformat()}
        case tuple():
            return [document(item) for item in value]
        case Mapping():
            return {"Mapping": {key: document(item) for key, item in value.items()}}
        case _ if is_dataclass(value):
            given = {item.name: getattr(value, item.name) for item in fields(value)}
            told = {item.name: document(given[item.name]) for item in fields(value) if not _is_default(item, given)}
            return {type(value).__name__: told}
        case _:
            raise TypeError(type(value))


def written(value: object) -> str:
    """The document as text, its keys in order; ASCII, as databases differ in what else a text may hold."""
    return json.dumps(document(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def restored(found: Json, kind: type[T]) -> T:
    """The value of that kind which the document tells.

    Raises
    ------
    ValueError
        It tells no such value (a type, key or value that the annotations do not name), or not as `document` does.
    """
    try:
        value = cast("T", _restored(found, kind))
        is_ours = document(value) == found
    except (ValueError, TypeError, LookupError, AttributeError, InvalidOperation) as error:
        raise ValueError(f"No {kind.__name__} is told: {error!r:.200}") from error
    if not is_ours:
        raise ValueError(f"{kind.__name__} is told in another way than ours: {found!r:.200}")
    return value


def read(text: str, kind: type[T]) -> T:
    """The value that `written` wrote; otherwise as `restored`."""
    return restored(json.loads(text), kind)


def _is_default(item: Field[Any], given: Mapping[str, Any]) -> bool:
    if item.default_factory is not MISSING:
        return bool(given[item.name] == item.default_factory())
    # Of one type, as True equals 1.
    return type(given[item.name]) is type(item.default) and given[item.name] == item.default


def _restored(found: Json, hint: Any) -> Any:  # noqa: ANN401
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    match found:
        case list():
            (items,) = (get_args(option)[0] for option in options if get_origin(option) is tuple)
            return tuple(_restored(item, items) for item in found)
        case dict():
            ((name, told),) = found.items()
            (option,) = (option for option in options if _name(option) == name)
            return _tagged(told, option)
        case _ if type(found) in options:
            return found
        case _:
            raise ValueError(f"{found!r:.100} is none of {options}")


def _name(option: Any) -> str:  # noqa: ANN401
    return str(getattr(option, "__name__", ""))


def _tagged(told: Json, option: Any) -> Any:  # noqa: ANN401
    if get_origin(option) is Mapping:
        (_, hint), items = get_args(option), cast("dict[str, Json]", told)
        return {key: _restored(item, hint) for key, item in items.items()}
    if isinstance(option, type) and is_dataclass(option):
        hints, items = get_type_hints(option), cast("dict[str, Json]", told)
        return option(**{key: _restored(item, hints[key]) for key, item in items.items()})
    if option is Decimal or issubclass(option, Enum):
        return option(told)
    if issubclass(option, date):
        return option.fromisoformat(told)
    raise ValueError(option)
