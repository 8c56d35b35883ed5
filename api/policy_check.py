"""What a policy names and a publication does not have.

A name that matches nothing hides nothing, and a row filter that cannot be applied must not be left out. So whoever
keeps the file is told of the one, in the log and by `insight policy check`, and the other closes the role.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import structlog

from api.catalog import PERSON, Catalog, ValueType, nearest
from api.errors import Forbidden, RequestError
from api.filters import Comparison, typed
from api.policy import Policy, Role, RowFilter, matches

_log = structlog.get_logger(__name__)

# Claims are texts, so they are compared with what is written as one.
_WRITTEN_AS_TEXT = (ValueType.STRING, ValueType.DATE, ValueType.TIMESTAMP)
_SAMPLES = {ValueType.STRING: "text", ValueType.DATE: "2019-01-31", ValueType.TIMESTAMP: "2019-01-31T12:00:00"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in the policy file that does not fit the published definitions; `is_closing` if it closes the role."""

    place: str
    detail: str
    nearest: tuple[str, ...] = ()
    is_closing: bool = False


def policy_problems(policy: Policy, catalog: Catalog) -> tuple[Problem, ...]:
    """Every problem of the policy, in the order of the file."""
    return tuple(problem for name, role in policy.roles.items() for problem in role_problems(name, role, catalog))


def role_problems(name: str, role: Role, catalog: Catalog) -> Iterator[Problem]:
    """The problems of a role of that name."""
    metrics, dimensions = catalog.metrics.keys(), catalog.dimensions.keys()
    for part, patterns, known in (
        ("metrics", role.metrics, metrics),
        ("dimensions", role.dimensions, dimensions),
        ("hidden", role.hidden, metrics | dimensions),
        ("hashed", role.hashed, dimensions),
    ):
        for number, pattern in enumerate(patterns):
            if not any(matches(item, (pattern,)) for item in known):
                yield _unmatched(f"roles.{name}.{part}.{number}", pattern, known)
    if role.min_customers is not None and PERSON not in catalog.entities:
        place = f"roles.{name}.min_customers"
        yield Problem(place=place, detail=f"no entity {PERSON} is there to be counted", is_closing=True)
    for number, row in enumerate(role.rows):
        yield from _row_problems(f"roles.{name}.rows.{number}", row, catalog)


def require_sound(name: str, role: Role, catalog: Catalog) -> None:
    """Return if the role can be applied to the publication.

    Raises
    ------
    Forbidden
        A row filter does not fit it; what would be left without the filter is for nobody to see.
    """
    if any(problem.is_closing for problem in role_problems(name, role, catalog)):
        raise broken_policy(name)


def broken_policy(role: str) -> Forbidden:
    """The refusal to somebody whose role cannot be applied; says nothing of what the policy names."""
    return Forbidden(
        f"The role {role!r} cannot be applied to the published definitions",
        hint="Ask whoever keeps the policy file: `insight policy check` names the problem.",
        code="broken_policy",
    )


class PolicyReviewer:
    """Logs the problems of each pair of policy and publication once."""

    def __init__(self) -> None:
        self._reviewed: tuple[Policy, str] | None = None

    def has_reviewed(self, policy: Policy, *, version: str | None) -> bool:
        """Whether this pair was the last to be reviewed."""
        last = self._reviewed
        return last is not None and last[0] is policy and last[1] == version

    def review(self, policy: Policy, catalog: Catalog, *, version: str) -> None:
        """Log what the policy names and this version does not have."""
        self._reviewed = (policy, version)
        for problem in policy_problems(policy, catalog):
            _log.error(
                "policy_problem",
                place=problem.place,
                detail=problem.detail,
                nearest=problem.nearest,
                closes_the_role=problem.is_closing,
                publication=version,
            )


def _unmatched(place: str, pattern: str, known: Collection[str]) -> Problem:
    if "*" in pattern:
        return Problem(place=place, detail=f"{pattern!r} matches nothing", nearest=nearest(pattern, known))
    return Problem(place=place, detail=f"nothing is called {pattern!r}", nearest=nearest(pattern, known))


def _row_problems(place: str, row: RowFilter, catalog: Catalog) -> Iterator[Problem]:
    try:
        field = catalog.group_by(row.field)
        if row.claim is None:
            typed(Comparison(field=row.field, operator=row.op, values=row.values), field=field.column, type_=field.type)
        else:
            _check_claim(row, field.type)
    except RequestError as error:
        yield Problem(place=place, detail=error.detail, nearest=error.nearest, is_closing=True)
    except ValueError as error:
        yield Problem(place=place, detail=str(error), is_closing=True)


def _check_claim(row: RowFilter, type_: ValueType) -> None:
    if type_ not in _WRITTEN_AS_TEXT:
        msg = f"{row.field} is of type {type_}, and the values of a claim are texts"
        raise ValueError(msg)
    count = next(count for count in (1, 2, 0) if row.op.accepts(count))
    sample = Comparison(field=row.field, operator=row.op, values=(_SAMPLES[type_],) * count)
    typed(sample, field=row.field, type_=type_)
