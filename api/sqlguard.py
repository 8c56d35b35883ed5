"""The second wall: whatever was compiled, it may only read the published tables."""

from __future__ import annotations

from collections.abc import Iterable

import sqlglot
from sqlglot import exp

from api.errors import InternalFault

_CTE = "_cte"  # how MetricFlow ends the name of each; no table of DuckDB's own ends so


class SqlGuard:
    """Lets pass one SELECT over known tables, and nothing else: no other statement, no table function, no file."""

    def __init__(self, *, tables: Iterable[str], dialect: str) -> None:
        self._dialect = dialect
        self._tables = frozenset(_qualified(exp.to_table(table, dialect=dialect)) for table in tables)

    def check(self, sql: str) -> None:
        """Return if the SQL is harmless.

        Raises
        ------
        InternalFault
            It is not: a value or a name has become SQL, which is a defect of ours.
        """
        try:
            statements = sqlglot.parse(sql, dialect=self._dialect)
        except sqlglot.errors.SqlglotError as error:
            raise _refused("it cannot be parsed") from error
        if len(statements) != 1 or not isinstance(statements[0], exp.Query):
            raise _refused("it is not one SELECT")
        for problem in self._problems(statements[0]):
            raise _refused(problem)

    def _problems(self, query: exp.Query) -> Iterable[str]:
        named = {cte.alias_or_name.lower() for cte in query.find_all(exp.CTE)}
        # So that no CTE can lend its name to a table elsewhere in the statement, or inside itself.
        if not all(name.endswith(_CTE) for name in named):
            yield "it names a CTE otherwise than MetricFlow does"
        for table in query.find_all(exp.Table):
            if not isinstance(table.this, exp.Identifier):
                yield "it reads a table function"
            elif _qualified(table) not in self._tables and (table.db or table.name.lower() not in named):
                yield "it reads a table that is not published"
        if query.find(exp.Lateral):
            yield "it reads a function as a table"
        if query.find(exp.Command, exp.DDL, exp.DML, exp.Into, exp.Describe, exp.Summarize, exp.Show):
            yield "it does more than read"


def _qualified(table: exp.Table) -> tuple[str, ...]:
    return tuple(part.name.lower() for part in table.parts)


def _refused(reason: str) -> InternalFault:
    return InternalFault(
        f"The compiled SQL was refused: {reason}", hint="Report the request id; nothing was run.", code="sql_refused"
    )
