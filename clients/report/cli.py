"""`insight report`: one page about a period."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from clients.connection import connected
from clients.report.content import write_report
from clients.report.pages import Format, rendered
from clients.report.periods import month_of, read_period


def report(
    period: Annotated[
        str | None, typer.Option(help="2019-12, 2019-Q4, 2019-H2 or 2019 [default: the month that the data end in].")
    ] = None,
    format_: Annotated[Format | None, typer.Option("--format", "-f", help="[default: as --out ends, else md].")] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file, not to the screen.")] = None,
) -> None:
    """Write one page about a period, whose every number comes from a request that it lists."""
    wanted = read_period(period) if period else None  # before anything is asked
    chosen = format_ or _format_of(out)
    if chosen is Format.PDF and out is None and sys.stdout.isatty():
        raise typer.BadParameter("a PDF is for a file: name one with --out")
    with connected() as client:
        if wanted is None:
            wanted = read_period(month_of(date.fromisoformat(client.freshness()["as_of"])))
        content = rendered(write_report(client, wanted), chosen)
    if out is None:
        sys.stdout.buffer.write(content)
    else:
        out.write_bytes(content)


def _format_of(out: Path | None) -> Format:
    """The format that the file's name ends in."""
    try:
        return Format(out.suffix.removeprefix(".").lower()) if out else Format.MD
    except ValueError:
        return Format.MD
