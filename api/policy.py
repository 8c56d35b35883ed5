"""Who may see what: principals, roles, row filters, masks. Default deny.

A principal has one role. The role names the metrics and dimensions that exist for it (others are unknown names, not
forbidden ones, so that nothing is learnt by asking), the rows that count for it, and what it sees hashed. Row filters
are typed filters like a caller's, added by the server; their values may come from the principal's claims.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Annotated, TypeAlias

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator

from api.errors import Forbidden, InvalidQuery
from api.filters import AllOf, Comparison, Filter, Operator, comparisons
from api.query import CheckedQuery
from api.strict_yaml import load_strictly

_log = structlog.get_logger(__name__)

Claims: TypeAlias = Mapping[str, tuple[str, ...]]

_REMEMBERED_GRANTS = 1_000
_LOOK_S = 1.0  # between looks at the policy file
HASH_CHARACTERS = 16  # 64 bits: among a million keys, a collision has a chance of 1 in 37 million


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller, its role, and what is known of it for row filters (`regions: California, Chicago`)."""

    principal_id: str
    name: str
    role: str
    claims: Claims = field(default_factory=dict)


class Strict(BaseModel):
    """What the policy file's parts share."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RowFilter(Strict):
    """Rows that count: a field against values, or against the values of a claim."""

    field: str
    op: Operator
    values: tuple[StrictStr | StrictBool | StrictInt, ...] = ()
    claim: str | None = None

    @model_validator(mode="after")
    def _values_or_claim(self) -> RowFilter:
        if self.claim is not None and self.values:
            msg = "give values or a claim, not both"
            raise ValueError(msg)
        if self.claim is None and not self.op.accepts(len(self.values)):
            msg = f"{self.op} takes {self.op.arity}"
            raise ValueError(msg)
        return self


Patterns = Annotated[tuple[str, ...], Field(description="Names, with * for any characters.")]


class Role(Strict):
    """What its principals may see."""

    metrics: Patterns = ()
    dimensions: Patterns = ()
    hidden: Patterns = ()
    hashed: Patterns = ()
    rows: tuple[RowFilter, ...] = ()
    see_sql: bool = False
    introspection: bool = Field(default=True, description="Whether GraphQL tells it its schema.")
    max_rows: int | None = Field(None, ge=1)
    requests_per_minute: int | None = Field(None, ge=1)
    rows_per_day: int | None = Field(None, ge=1)
    min_customers: int | None = Field(None, ge=2, description="Customers that a shown number is about, at least.")
    max_cost: int | None = Field(None, ge=1, description="Cost of one query at most, as `api.cost` reckons it.")

    def shows_metric(self, name: str) -> bool:
        """Whether the metric exists for the role."""
        return matches(name, self.metrics) and not matches(name, self.hidden)

    def hashes(self, name: str) -> bool:
        """Whether the role sees the dimension's values hashed."""
        return matches(name, self.hashed)

    def shows_dimension(self, name: str) -> bool:
        """Whether the dimension exists for the role."""
        return matches(name, self.dimensions) and not matches(name, self.hidden)


class PolicyDocument(Strict):
    """A whole `policy.yml`."""

    version: Annotated[int, Field(ge=1, le=1)]
    roles: dict[str, Role] = Field(min_length=1)


@dataclass(frozen=True, kw_only=True)  # without slots, so that it can remember its digest
class Grant:
    """What one principal may see now: its role, and the rows that count for it."""

    role_name: str
    role: Role
    rows: Filter | None

    @cached_property
    def digest(self) -> str:
        """Names the grant: the same in each process, and another one as soon as anything in it changes."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def require_sql(self) -> None:
        """Refuse to show how an answer is made (SQL, lineage), unless the role may see it; raises `Forbidden`."""
        if not self.role.see_sql:
            raise Forbidden(
                f"The role {self.role_name!r} does not see SQL and lineage",
                hint="Ask for the answer itself: POST /v1/query.",
                code="sql_forbidden",
            )

    def refuse_cost(self, cost: int) -> None:
        """Refuse what costs more than the role may spend on one query; raises `InvalidQuery`."""
        if self.role.max_cost is not None and cost > self.role.max_cost:
            raise InvalidQuery(
                f"The query would read and join some {cost:,} rows, and your role may spend {self.role.max_cost:,}",
                hint=(
                    "Ask for fewer metrics or group-bys, filter more, or ask for sums in place of running totals; "
                    "whoever keeps the policy file can raise max_cost."
                ),
                code="query_too_expensive",
            )

    def refuse_hashed(self, checked: CheckedQuery) -> None:
        """Refuse to filter or sort by a value that the role sees hashed: either would tell what the hash hides.

        Raises
        ------
        Forbidden
            The question does one of the two.
        """
        ordered = {order.field for order in checked.order_by}
        used = [*checked.fields] + [item for item in checked.group_by if item.column in ordered]
        for item in used:
            if self.role.hashes(item.dimension.name):
                raise Forbidden(
                    f"{item.dimension.name} is hashed for your role, so nothing can be filtered or sorted by it",
                    hint="Group by it, or use another dimension.",
                    code="hashed_dimension",
                )

    def refuse_unfiltered(self, checked: CheckedQuery) -> None:
        """Refuse what row filters do not reach: the metric of a filter counts every row.

        Raises
        ------
        Forbidden
            The role sees some rows only, and the question filters by a metric.
        """
        metrics = [leaf.field for leaf in comparisons(checked.where) if leaf.per]
        if self.rows is not None and metrics:
            raise Forbidden(
                f"Your role sees some rows only, and a filter on {metrics[0]} would count all of them",
                hint="Ask for the metric, grouped by the entity, and filter it with having.",
                code="metric_filter_forbidden",
            )

    def refuse_uncounted(self, checked: CheckedQuery) -> None:
        """Refuse what brings customers into an answer whom the role's floor does not count; raises `Forbidden`."""
        if self.role.min_customers is None:
            return
        if checked.earlier is not None:
            self.refuse_below_floor("Comparisons with an earlier range", hint="Ask for each range by itself.")
        if any(leaf.per for leaf in comparisons(checked.where)):
            self.refuse_below_floor("Filters on a metric", hint="Filter by dimensions, or use having.")
        if any(item.date_part for item in (*checked.group_by, *checked.fields)):
            self.refuse_below_floor("Parts of dates", hint="Group and filter by a grain, metric_time__month for one.")

    def refuse_below_floor(self, asked: str, *, hint: str) -> None:
        """Refuse a way of asking in which customers are not counted, if the role has a floor.

        Parameters
        ----------
        asked
            The way of asking, as a noun in the plural that begins a sentence.

        Raises
        ------
        Forbidden
            The role has a floor.
        """
        if self.role.min_customers is not None:
            raise Forbidden(
                f"{asked} are not for your role, which sees what {self.role.min_customers} customers share or more",
                hint=hint,
                code="anonymity_floor",
            )


class Policy:
    """The roles in force; the file's, or three built-in ones."""

    def __init__(self, roles: Mapping[str, Role]) -> None:
        self.roles: Mapping[str, Role] = dict(roles)
        self._grants: dict[str, tuple[Principal, Grant]] = {}  # of those who asked last

    def knows(self, role_name: str) -> bool:
        """Whether there is a role of that name."""
        return role_name in self.roles

    def role(self, principal: Principal) -> Role:
        """The principal's role; raises `Forbidden` where the policy does not have it."""
        role = self.roles.get(principal.role)
        if role is None:
            raise Forbidden(
                f"The role {principal.role!r} is not in the policy",
                hint="Ask whoever keeps the policy file.",
                code="unknown_role",
            )
        return role

    def grant(self, principal: Principal) -> Grant:
        """What the principal may see.

        Raises
        ------
        Forbidden
            Its role is not in the policy, or a claim that its row filter needs is missing.
        """
        known = self._grants.get(principal.principal_id)
        if known is not None and known[0] is principal:
            return known[1]
        role = self.role(principal)
        parts = tuple(_resolved(row, principal) for row in role.rows)
        grant = Grant(role_name=principal.role, role=role, rows=AllOf(parts) if parts else None)
        if len(self._grants) >= _REMEMBERED_GRANTS:
            self._grants.clear()
        self._grants[principal.principal_id] = principal, grant
        return grant


class BuiltInRole(StrEnum):
    """The roles without a policy file: everything; every metric and its SQL; every metric, with people hashed."""

    ADMIN = "admin"
    ANALYST = "analyst"
    VIEWER = "viewer"


_ALL = ("*",)
_EVERYTHING = Role(metrics=_ALL, dimensions=_ALL, see_sql=True)
BUILT_IN = Policy(
    {
        BuiltInRole.ADMIN: _EVERYTHING,
        BuiltInRole.ANALYST: Role(metrics=_ALL, dimensions=_ALL, see_sql=True),
        BuiltInRole.VIEWER: Role(metrics=_ALL, dimensions=_ALL, hashed=("customer",)),
    }
)

REHEARSING = Grant(role_name=BuiltInRole.ADMIN, role=_EVERYTHING, rows=None)
ANYBODY = Principal(principal_id="anonymous", name="authentication is off", role=BuiltInRole.ADMIN)


class PolicySource:
    """The policy, read again when its file changes; a bad file never replaces a good policy."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._policy = BUILT_IN
        self._stamp: tuple[int, int] | None = None
        self._looked_at = 0.0
        if file is not None:
            self._policy, self._stamp = read_policy(file), _stamp(file)

    def current(self) -> Policy:
        """The policy in force; the file is looked at once a second."""
        now = monotonic()
        if self._file is not None and now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._reload(self._file)
        return self._policy

    def _reload(self, file: Path) -> None:
        stamp = _stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._policy = read_policy(file)
        except InvalidQuery as error:
            _log.error("policy_refused", detail=error.detail, hint=error.hint)
        else:
            _log.info("policy_in_force", file=str(file))


def read_policy(file: Path) -> Policy:
    """The policy in the file.

    Raises
    ------
    InvalidQuery
        It cannot be read, or is no policy; the detail names the place.
    """
    try:
        document = PolicyDocument.model_validate(load_strictly(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False)
        raise _bad_file(
            file, "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in faults)
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _bad_file(file, str(error)) from error
    return Policy(document.roles)


def hashed(value: object, secret: bytes) -> str | None:
    """What stands for a value that may be told apart but not known; null stays null."""
    if value is None:
        return None
    return hmac.new(secret, str(value).encode(), hashlib.sha256).hexdigest()[:HASH_CHARACTERS]


def _resolved(row: RowFilter, principal: Principal) -> Comparison:
    values: tuple[str | bool | int, ...] = row.values
    if row.claim is not None:
        values = principal.claims.get(row.claim, ())
        if not row.op.accepts(len(values)):
            raise Forbidden(
                f"The role {principal.role!r} needs the claim {row.claim!r}",
                hint="Ask for a key or token that carries it.",
                code="missing_claim",
            )
    return Comparison(field=row.field, operator=row.op, values=values)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the name is one of the patterns, in which * stands for any characters."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


def _bad_file(file: Path, problem: str) -> InvalidQuery:
    return InvalidQuery(
        f"The policy file {file} cannot be used: {problem:.500}", hint="See docs/policy.md.", code="invalid_policy"
    )
