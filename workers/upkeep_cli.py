"""The commands that keep a warehouse in order: `insight snowflake …`, `insight retention …`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from workers.account_names import AccountNames, Edition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.account import Statement
    from workers.retention import Removal

snowflake = typer.Typer(no_args_is_help=True, help="The Snowflake account: warehouses, roles, grants, policies.")
retention = typer.Typer(no_args_is_help=True, help="Raw rows that are too old.")

AsJson = Annotated[bool, typer.Option("--json", help="The outcome as JSON on stdout.")]
_DEFAULT = AccountNames()


@snowflake.callback()
def about_snowflake() -> None:
    """Set a Snowflake account up."""


@snowflake.command("bootstrap")
def bootstrap(
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the statements; nobody is asked.")] = False,
    is_applied: Annotated[
        bool, typer.Option("--apply", help="Run them, as INSIGHT_SNOWFLAKE_ADMIN_URL signs in.")
    ] = False,
    database: Annotated[str, typer.Option(help="Raw rows, builds, versions.")] = _DEFAULT.database,
    prefix: Annotated[str, typer.Option(help="Begins the names of warehouses and roles.")] = _DEFAULT.prefix,
    analyst: Annotated[str, typer.Option(help="Role of people with SQL of their own.")] = _DEFAULT.analyst,
    edition: Annotated[Edition, typer.Option(help="Of the account; standard has no masks.")] = Edition.ENTERPRISE,
) -> None:
    """Print, or run, the statements of docs/snowflake/ that make the account; to run them again changes nothing."""
    from workers.account import read_account

    if is_dry_run is is_applied:
        raise typer.BadParameter("Say either --dry-run or --apply")
    names = AccountNames(database=database, prefix=prefix, analyst=analyst)
    statements = read_account(names, edition=edition)
    if is_dry_run:
        typer.echo(_as_script(statements))
    else:
        _apply(statements)


@retention.callback()
def about_retention() -> None:
    """Remove raw rows that are too old."""


@retention.command("apply")
def apply_retention(
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove rejected records and replaced raw rows that are too old, and say how many; none that a build needs."""
    from workers.retention import RetentionRules
    from workers.retention import apply_retention as remove
    from workers.settings import read_settings
    from workers.sinks import open_warehouse

    settings = read_settings()
    rules = RetentionRules(
        rejected=timedelta(days=settings.keep_rejected_days), superseded=timedelta(days=settings.keep_superseded_days)
    )
    with open_warehouse(settings.warehouse_url) as warehouse:
        removals = remove(warehouse, rules, now=datetime.now(UTC), is_dry_run=is_dry_run)
    if as_json:
        told = [asdict(removal) for removal in removals]
        typer.echo(json.dumps({"dry_run": is_dry_run, "tables": told}, default=datetime.isoformat))
    else:
        _tell_removed(removals, is_dry_run=is_dry_run)


def _as_script(statements: Sequence[Statement]) -> str:
    """The statements as one script, file by file, fit for a worksheet."""
    files = groupby(statements, key=lambda statement: statement.file)
    return "\n\n".join(
        f"-- docs/snowflake/{file}\n" + "\n".join(f"{statement.text};" for statement in found) for file, found in files
    )


def _apply(statements: Sequence[Statement]) -> None:
    from workers.account import apply_account, connect_account
    from workers.errors import SettingError
    from workers.settings import AccountSettings, read

    url = read(AccountSettings).snowflake_admin_url
    if url is None:
        raise SettingError(
            "INSIGHT_SNOWFLAKE_ADMIN_URL is not set, so nobody can sign in",
            hint="Set it to a user with ACCOUNTADMIN, or look at --dry-run first",
        )
    console = Console(stderr=True)
    with closing(connect_account(url.get_secret_value())) as connection, console.status("Signing in") as shown:
        apply_account(
            connection, statements, progress=lambda now: shown.update(f"{now.file}: {now.text.splitlines()[0]:.70}")
        )
    files = len({statement.file for statement in statements})
    typer.echo(f"The account is as docs/snowflake/ says: {len(statements)} statements of {files} files hold")


def _tell_removed(removals: Sequence[Removal], *, is_dry_run: bool) -> None:
    table = Table("raw table", "rows", "before", "would go" if is_dry_run else "removed", "kept", box=SIMPLE_HEAD)
    for found in removals:
        counts = (f"{found.removed_rows:,}", f"{found.kept_rows:,}")
        table.add_row(found.table, found.reason, f"{found.before:%Y-%m-%d %H:%M} UTC", *counts)
    Console().print(table)
    typer.echo("Kept whatever its age: what marts are built from, and what was loaded (load_files, consumer_offsets)")
