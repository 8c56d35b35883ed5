"""The SELECT around a call: `SELECT name FROM {{ semantic_layer.metrics() }} WHERE type = 'simple'`.

It runs over the call's rows alone, in an engine of its own that has nothing else: no file, no network, no marts. Before
that it is parsed, every part of it has to be on a closed list, every text is taken out and bound, and what runs is
written anew from what was parsed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import sqlglot
from sqlglot import exp

from api.errors import InvalidQuery
from api.flight.calls import not_understood
from api.flight.statement import CALLED

_DIALECT = "duckdb"
_TIMEOUT_S = 10.0  # over one page of rows, a second is long
_MAX_CHARACTERS = 20_000
_MAX_PARTS = 5_000

# One SELECT over one table, with what decides, computes and sorts. What is not here is refused.
_CLAUSES = (
    exp.Select, exp.From, exp.Table, exp.TableAlias, exp.Where, exp.Group, exp.Having, exp.Order, exp.Ordered,
    exp.Limit, exp.Offset, exp.Distinct, exp.Alias, exp.Column, exp.Identifier, exp.Star, exp.Tuple,
)  # fmt: skip
_CONDITIONS = (
    exp.And, exp.Or, exp.Not, exp.Paren, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.In, exp.Between,
    exp.Like, exp.ILike, exp.Is, exp.Case, exp.If,
)  # fmt: skip
_VALUES = (
    exp.Literal, exp.Boolean, exp.Null, exp.Neg, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Cast, exp.DataType,
    exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Count, exp.Lower, exp.Upper, exp.Coalesce, exp.Round, exp.Abs,
)  # fmt: skip
_KNOWN = frozenset((*_CLAUSES, *_CONDITIONS, *_VALUES))
_TYPES = (
    frozenset(
        exp.DataType.Type[name] for name in ("INT", "BIGINT", "DOUBLE", "DECIMAL", "DATE", "TIMESTAMP", "BOOLEAN")
    )
    | exp.DataType.TEXT_TYPES
)

_HARDENED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # else a table name may mean a variable of this process
    "memory_limit": "256MB",
    "threads": "1",
    "temp_directory": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """A SELECT that is known to be harmless, and the texts in it.

    `first` is how many rows it takes where it does nothing but cut them short.
    """

    sql: str
    texts: dict[str, str]
    first: int | None = None

    async def over(self, rows: pa.Table) -> pa.Table:
        """What it selects of the rows.

        Raises
        ------
        InvalidQuery
            It names a column that the rows do not have, or does with one what its type does not allow.
        """
        with closing(duckdb.connect(":memory:", config=_HARDENED)) as engine:
            running = asyncio.get_running_loop().run_in_executor(None, self._run, engine, rows)
            try:
                done, _ = await asyncio.wait((running,), timeout=_TIMEOUT_S)
            except asyncio.CancelledError:
                await _interrupted(engine, running)
                raise
            if not done:
                await _interrupted(engine, running)
                raise not_understood(
                    "The SELECT around the call takes too long", hint="Filter and sort in the call itself."
                )
            return running.result()

    def _run(self, engine: duckdb.DuckDBPyConnection, rows: pa.Table) -> pa.Table:
        try:
            engine.register(CALLED, rows)
            engine.execute("SET lock_configuration = true")
            return engine.sql(self.sql, params=self.texts or None).to_arrow_table()
        except duckdb.Error as error:
            # Its first line names columns and types, which the caller sees anyway.
            raise InvalidQuery(
                f"The SELECT around the call cannot be answered: {str(error).partition(chr(10))[0]:.300}",
                hint=f"The call's rows have the columns {', '.join(rows.column_names)[:500]}.",
                code="unsupported_statement",
            ) from error


async def _interrupted(engine: duckdb.DuckDBPyConnection, running: asyncio.Future[pa.Table]) -> None:
    engine.interrupt()
    await asyncio.wait((running,))
    running.exception()  # taken, as nobody else asks for it


def parse_around(sql: str) -> Around:
    """The SELECT, known to read the table `CALLED` and nothing else.

    Raises
    ------
    InvalidQuery
        It is anything more.
    """
    tree = parsed_select(sql)
    tables = list(tree.find_all(exp.Table))
    if len(tables) != 1 or tables[0].name != CALLED or tables[0].args.get("db"):
        raise not_understood(
            "A statement reads the rows of one call, and nothing else", hint="Write SELECT ... FROM {{ ... }}."
        )
    for part in tree.walk():
        _check(part, tree)
    return Around(texts=dict(_taken_texts(tree)), sql=tree.sql(dialect=_DIALECT), first=_first(tree))


def _first(tree: exp.Select) -> int | None:
    limit = tree.args.get("limit")
    is_cut_alone = not any(tree.args.get(name) for name in ("where", "group", "having", "order", "offset", "distinct"))
    if not is_cut_alone or not isinstance(limit, exp.Limit) or tree.find(exp.AggFunc):
        return None
    return int(limit.expression.this) if str(limit.expression.this).isdigit() else None


def parsed_select(sql: str) -> exp.Select:
    """The one SELECT that the SQL is, without comments; `InvalidQuery` if it is anything else."""
    if len(sql) > _MAX_CHARACTERS:
        raise not_understood(f"The SQL has {len(sql)} characters", hint=f"At most {_MAX_CHARACTERS} are allowed.")
    try:
        statements = sqlglot.parse(sql, dialect=_DIALECT)
    except (sqlglot.errors.SqlglotError, RecursionError) as error:
        raise InvalidQuery(
            "The statement cannot be read as SQL",
            hint="Write SELECT columns FROM one table, with WHERE, GROUP BY, ORDER BY and LIMIT.",
            code="unsupported_statement",
        ) from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Select):
        raise not_understood("A statement is one SELECT", hint="Write SELECT columns FROM one table.")
    tree = statements[0]
    for count, part in enumerate(tree.walk()):
        part.comments = None
        if count > _MAX_PARTS:
            raise not_understood("The statement has too many parts", hint="Ask for less at once.")
    return tree


def _check(part: exp.Expr, tree: exp.Select) -> None:
    if type(part) not in _KNOWN or (isinstance(part, exp.Select) and part is not tree):
        raise not_understood(
            f"{part.sql(dialect=_DIALECT)[:60]!r} ({part.key}) is not allowed around a call",
            hint="Known are columns, comparisons, arithmetic, CASE, SUM, AVG, MIN, MAX, COUNT, ORDER BY and LIMIT.",
        )
    if isinstance(part, exp.DataType) and part.this not in _TYPES:
        raise not_understood(
            f"{part.sql(dialect=_DIALECT)[:60]!r} is no type to cast to", hint="Cast to DATE, DOUBLE or VARCHAR."
        )


def _taken_texts(tree: exp.Select) -> Iterator[tuple[str, str]]:
    """Each text, of which the tree has a placeholder from then on."""
    for number, literal in enumerate(list(tree.find_all(exp.Literal))):
        if literal.is_string:
            literal.replace(exp.Placeholder(this=f"text_{number}"))
            yield f"text_{number}", str(literal.this)
