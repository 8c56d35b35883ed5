"""What no route expects is refused: a misspelt parameter that is ignored would be a wrong answer that looks right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant

from api.catalog import nearest
from api.errors import InvalidQuery


async def refuse_surplus(request: Request) -> None:
    """Let pass a request that says nothing twice, and nothing that its route does not know; whichever the route is.

    Raises
    ------
    InvalidQuery
        A query parameter is unknown or comes twice, or an object in the body has a key twice.
    """
    if request.query_params:
        names = [name for name, _ in request.query_params.multi_items()]
        _refuse_unknown(names, set(_query_parameters(request.scope["route"].dependant)))
        _refuse_repeated(names, noun="parameter")
    if request.scope["route"].body_field is not None:
        # FastAPI has read it as JSON before; whatever is none, or says that it is none, was refused or will be.
        _refuse_repeated_keys(await request.body())


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for deeper in dependant.dependencies:
        yield from _query_parameters(deeper)


def _refuse_unknown(names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            similar = nearest(name, known)
            hint = (
                f"Did you mean {' or '.join(similar)}?"
                if similar
                else f"Known here: {', '.join(sorted(known)) or 'none'}."
            )
            raise InvalidQuery(f"There is no parameter {name[:200]!r} here", hint=hint, code="unknown_parameter")


def _refuse_repeated(names: Iterable[str], *, noun: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise InvalidQuery(
                f"The {noun} {name[:200]!r} is given {count} times", hint="Give it once.", code="duplicate_name"
            )


def _refuse_repeated_keys(body: bytes) -> None:
    def checked(pairs: list[tuple[str, object]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            _refuse_repeated((name for name, _ in pairs), noun="key")

    try:
        json.loads(body, object_pairs_hook=checked)
    except (ValueError, RecursionError):
        return
