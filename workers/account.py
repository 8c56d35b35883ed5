"""The Snowflake account as code: the statements of docs/snowflake/, with names put in, printed or run in their order.

The files are the account: a change is a change of a file, reviewed. Names vary between accounts; each is an identifier
that was checked before it came near a statement. Every statement may be run again, so a run that broke off is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import sqlglot
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlglot import Token, TokenType

from api.snowflake_account import SnowflakeAccount, SnowflakeSettings
from workers.account_names import AccountNames, Edition
from workers.errors import AccountError, SettingError

ACCOUNT_FILES: Final = Path(__file__).resolve().parent.parent / "docs" / "snowflake"

_PLACEHOLDER: Final = re.compile(r"\$\{(\w+)\}")
_NEEDS_ENTERPRISE: Final = "-- Edition: enterprise\n"
_LONGEST: Final = timedelta(minutes=5)  # nothing here computes much


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement, and where it stands; `text` is without the semicolon."""

    file: str
    line: int
    text: str


def read_account(names: AccountNames, *, edition: Edition, folder: Path = ACCOUNT_FILES) -> tuple[Statement, ...]:
    """The statements that make the account, in their order; those that the edition lacks are left out.

    Raises
    ------
    SettingError
        The folder has no statements, or one names something that is not known here.
    """
    values = {field.name: getattr(names, field.name) for field in fields(names)}
    values["time_travel_days"] = str(edition.time_travel_days)
    statements: list[Statement] = []
    for file in sorted(folder.glob("[0-9][0-9]_*.sql")):
        text = file.read_text(encoding="utf-8")
        if edition is Edition.ENTERPRISE or not text.startswith(_NEEDS_ENTERPRISE):
            statements += _split(_filled(text, values, file.name), file.name)
    if not statements:
        raise SettingError(f"There are no statements in {folder}", hint="Run this where docs/snowflake/ is")
    return tuple(statements)


def apply_account(
    connection: Connection, statements: Sequence[Statement], *, progress: Callable[[Statement], None]
) -> None:
    """Run the statements one by one; each holds at once. Idempotent.

    Raises
    ------
    AccountError
        One failed: those before it hold, those after it were not run.
    """
    for done, statement in enumerate(statements):
        progress(statement)
        try:
            connection.exec_driver_sql(statement.text)
        except SQLAlchemyError as error:
            raise _as_account_error(error, statement, done=done, total=len(statements)) from error


def connect_account(url: str) -> Connection:
    """A connection to the account, in which each statement commits itself; whoever asks for it closes it.

    Raises
    ------
    SettingError
        The URL cannot be read, or is not one of Snowflake.
    AccountError
        Nobody answers, or the sign-in is refused.
    """
    # The administrator signs in as the URL says, not with the service's key or token.
    account = replace(_account(url), settings=SnowflakeSettings(**dict.fromkeys(SnowflakeSettings.model_fields)))
    engine = account.engine(
        longest=_LONGEST, autocommit=True, session={"QUERY_TAG": "marketing_insight_bootstrap"}, poolclass=NullPool
    )
    try:
        return engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    except SQLAlchemyError as error:
        raise AccountError(
            f"Snowflake cannot be reached, or refuses the sign-in: {_cause(error)}",
            hint="Check INSIGHT_SNOWFLAKE_ADMIN_URL, and that this machine reaches the account",
        ) from error


def _account(url: str) -> SnowflakeAccount:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "snowflake":
            return SnowflakeAccount.of(parsed)
    except (ArgumentError, ValueError) as error:
        raise SettingError("INSIGHT_SNOWFLAKE_ADMIN_URL cannot be used", hint=_URL_HINT) from error
    raise SettingError("INSIGHT_SNOWFLAKE_ADMIN_URL is no URL of Snowflake", hint=_URL_HINT)


_URL_HINT: Final = (
    "Set it to snowflake://USER@ACCOUNT/SNOWFLAKE?authenticator=externalbrowser; that database is in every account"
)


def _filled(text: str, values: dict[str, str], file: str) -> str:
    unknown = sorted(set(_PLACEHOLDER.findall(text)) - set(values))
    if unknown:
        raise SettingError(
            f"docs/snowflake/{file} names {', '.join(unknown)}, which is not known",
            hint=f"Known are {', '.join(sorted(values))}",
        )
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _split(text: str, file: str) -> Iterator[Statement]:
    """The statements of a file, without the comments between them."""
    pending: list[Token] = []
    for token in (*sqlglot.tokenize(text, read="snowflake"), None):
        if token is not None and token.token_type is not TokenType.SEMICOLON:
            pending.append(token)
        elif pending:
            first, last = pending[0], pending[-1]
            yield Statement(file=file, line=first.line, text=text[first.start : last.end + 1])
            pending = []


def _as_account_error(error: SQLAlchemyError, statement: Statement, *, done: int, total: int) -> AccountError:
    cause = _cause(error)
    place = f"docs/snowflake/{statement.file}, line {statement.line}"
    shown = statement.text.splitlines()[0]
    return AccountError(
        f"Statement {done + 1} of {total} failed ({place}): {shown}: {cause}",
        hint=f"{_remedy(cause)}; then run this again. The {done} before it hold, and may be repeated",
    )


def _remedy(cause: str) -> str:
    """What to do about the cause, as far as Snowflake's words tell."""
    told = cause.lower()
    if "insufficient privileges" in told or "not authorized" in told or "requested role" in told:
        return "Sign in as a user with ACCOUNTADMIN"
    if "unsupported feature" in told or "not supported" in told or "edition" in told:
        return "An account of the Standard edition needs --edition standard"
    return "Mend the cause"


def _cause(error: SQLAlchemyError) -> str:
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return " ".join(text.splitlines()[:2])
