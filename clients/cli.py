"""`insight`: one command line for everything.

The client commands are here; every other root adds its own through the entry points `insight.commands`, so that
no root has to import another. Errors end in one readable line with a hint, never a traceback (unless `--debug`).
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from typer.main import get_command

from clients.connection import connected, service_url
from clients.filter_text import parse_filter
from clients.render import render_chart, render_table
from clients.sdk import ApiError, Client

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


class Format(StrEnum):
    """How an answer is shown."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    NDJSON = "ndjson"
    PARQUET = "parquet"
    ARROW = "arrow"
    CHART = "chart"


class Compare(StrEnum):
    """The earlier range that metrics are compared with."""

    PREVIOUS_PERIOD = "previous_period"
    SAME_PERIOD_LAST_YEAR = "same_period_last_year"


app = typer.Typer(
    name="insight",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Metrics defined once, answered everywhere.",
)


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Metrics defined once, answered everywhere."""
    del debug  # `main` looks for it, as it has to catch what goes wrong before this runs


@app.command()
def metrics(
    search: Annotated[str | None, typer.Argument(help="Part of a name, label or description.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List the metrics, with what each counts."""
    with connected() as client:
        found = client.metrics(search)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        typer.echo(render_table(found, columns=["name", "unit", "description"]))


@app.command()
def query(
    metric: Annotated[list[str] | None, typer.Option("-m", "--metric", help="A metric; may be repeated.")] = None,
    group_by: Annotated[list[str] | None, typer.Option("-g", "--group-by", help="As metric_time__month.")] = None,
    where: Annotated[
        list[str] | None, typer.Option("-w", "--where", help="As 'customer__gender = F', or in dbt's words; all hold.")
    ] = None,
    order: Annotated[list[str] | None, typer.Option("-o", "--order", help="A column; -column for descending.")] = None,
    start: Annotated[str | None, typer.Option(help="First day, as 2019-01-01.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day.")] = None,
    preset: Annotated[str | None, typer.Option(help="Days relative to the as-of date, as this_month.")] = None,
    compare: Annotated[Compare | None, typer.Option(help="Beside each metric, itself over an earlier range.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="Where times of day are shown, as Europe/Berlin.")] = None,
    limit: Annotated[int | None, typer.Option("-n", "--limit", min=1, help="Rows at most; with --all, a page.")] = None,
    is_whole: Annotated[
        bool, typer.Option("--all", help="Every row, not the first page alone; -f csv, ndjson, parquet, arrow stream.")
    ] = False,
    output: Annotated[Format, typer.Option("-f", "--format", help="How to show it.")] = Format.TABLE,
    out: Annotated[Path | None, typer.Option(help="Write to this file, not to the screen.")] = None,
) -> None:
    """Ask for metrics."""
    if (start is None) != (end is None):
        raise typer.BadParameter("--start and --end go together")
    if start and preset:
        raise typer.BadParameter("--preset stands for --start and --end")
    request = {
        "metrics": metric,
        "group_by": group_by,
        "where": [parse_filter(text) for text in where or ()],
        "order_by": [{"field": name.removeprefix("-"), "descending": name.startswith("-")} for name in order or ()],
        "time_range": {"start": start, "end": end} if start else {"preset": preset} if preset else None,
        "compare_to": compare,
        "time_zone": time_zone,
        "limit": limit,
    }
    request = {key: value for key, value in request.items() if value}
    with connected() as client:
        if is_whole and output in _STREAMED:
            _export(client, {name: value for name, value in request.items() if name != "limit"}, output, out)
        else:
            _show(_rendered_whole(client, request, output) if is_whole else _rendered(client, request, output), out)


_STREAMED = {
    Format.CSV: "text/csv",
    Format.NDJSON: "application/x-ndjson",
    Format.PARQUET: "application/vnd.apache.parquet",
    Format.ARROW: "application/vnd.apache.arrow.stream",
}
_MEDIA_TYPES = {**_STREAMED, Format.JSON: "application/json"}


@app.command()
def welcome(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the service.")] = 60.0,
) -> None:
    """Wait until the service is ready, then say how to ask it."""
    with connected() as client:
        client.wait_until_ready(wait)
    exports = "\n".join(f"  export {name}={quote(os.environ[name])}" for name in _PLACES if name in os.environ)
    typer.echo(_WELCOME.format(url=service_url(), key=os.environ.get("INSIGHT_API_KEY", ""), exports=exports))


# What tells the everyday commands which service and which data are meant.
_PLACES = (
    "INSIGHT_API_URL",
    "INSIGHT_API_KEY",
    "INSIGHT_WAREHOUSE_URL",
    "INSIGHT_PUBLICATION_DIR",
    "INSIGHT_STATE_URL",
)


_WELCOME = """
Marketing Insight is serving.

  API            {url}/v1/metrics
  Documentation  {url}/docs
  Health         {url}/readyz
  API key        {key}

Ask for revenue by month:

  curl -s {url}/v1/query \\
    -H "Authorization: Bearer {key}" \\
    -H "Content-Type: application/json" \\
    -d '{{"metrics": ["total_revenue", "average_order_value"], "group_by": ["metric_time__month"]}}'

or on the command line, in this folder: the commands live in .venv/bin, and the exports point all of them at this
service and its data.

  source .venv/bin/activate
{exports}
  insight query -m total_revenue -g metric_time__month -f chart

ctrl-C stops it.
"""


def _rendered(client: Client, request: dict[str, Any], output: Format) -> bytes:
    if output in _MEDIA_TYPES:
        return client.query_bytes(request, media_type=_MEDIA_TYPES[output])
    answer = client.query(request)
    text = _drawn(answer["data"], answer["columns"], output)
    if answer["meta"]["truncated"] and output is Format.TABLE:
        text += f"\n(the first {answer['meta']['row_count']} rows; --all shows every one)"
    return text.encode()


def _rendered_whole(client: Client, request: dict[str, Any], output: Format) -> bytes:
    """Every page: a table or chart of them all, or one JSON document a line."""
    if output is Format.JSON:
        return b"\n".join(client.pages_bytes(request, media_type=_MEDIA_TYPES[output]))
    pages = list(client.pages(request))
    return _drawn([row for page in pages for row in page["data"]], pages[0]["columns"], output).encode()


def _drawn(rows: list[dict[str, Any]], columns: list[dict[str, Any]], output: Format) -> str:
    if output is Format.CHART:
        return render_chart(rows, columns=columns)
    return render_table(rows, columns=[column["name"] for column in columns])


def _export(client: Client, request: dict[str, Any], output: Format, out: Path | None) -> None:
    """Write every row to the file, which is there once it is whole, or else to the screen."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    media_type = _STREAMED[output]
    if out is None:
        client.export(request, sys.stdout.buffer, media_type=media_type)
        return
    half = out.with_name(f"{out.name}.part")
    try:
        columns = (SpinnerColumn(), TextColumn("Exporting"), DownloadColumn(), TimeElapsedColumn())
        with half.open("wb") as target, Progress(*columns, console=Console(stderr=True), transient=True) as shown:
            task = shown.add_task("", total=None)
            client.export(
                request, target, media_type=media_type, progress=lambda size: shown.update(task, completed=size)
            )
        half.replace(out)
    finally:
        half.unlink(missing_ok=True)


def _show(content: bytes, out: Path | None) -> None:
    if out is not None:
        out.write_bytes(content)
        return
    sys.stdout.buffer.write(content if content.endswith(b"\n") else content + b"\n")


def _add_commands(words: Sequence[str]) -> None:
    """The commands of all roots; where the command line names one, that one alone: all of them take seconds to load."""
    points = {point.name: point for point in entry_points(group="insight.commands")}
    named = next((word for word in words if not word.startswith("-")), "")
    if named in (command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands):
        return
    for point in [points[named]] if named in points else sorted(points.values(), key=lambda point: point.name):
        command = _loaded(point)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=point.name)
        else:
            app.command(point.name)(command)


def _loaded(point: EntryPoint) -> Any:  # noqa: ANN401 - a Typer application, or a function to be one's command
    try:
        return point.load()
    except (ImportError, AttributeError) as error:  # not installed, or the list of commands is of another version
        missing = error.name or str(error)

        def unavailable() -> None:
            raise ApiError(f"insight {point.name} needs {missing}", hint="Install it: make setup", code="not_installed")

        unavailable.__doc__ = f"Not installed (needs {missing})."
        return unavailable


def collect_rarely() -> None:
    """Have the collector of cycles look after 50,000 new objects instead of 700.

    Modules, dbt's graphs and batches of events are many objects that stay, or that nothing refers back to: to look for
    cycles among them was a fifth of the time that a start takes, a tenth of a build's and a fifth of a consumer's.
    """
    gc.set_threshold(50_000)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 misused."""
    collect_rarely()
    _add_commands(sys.argv[1:])
    is_debug = "--debug" in sys.argv[1:]
    try:
        sys.exit(get_command(app).main(standalone_mode=False))
    except typer.TyperException as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        _fail(text, hint="See: insight --help", code=MISUSED)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except Exception as error:
        if is_debug:
            raise
        hint = getattr(error, "hint", "Run it again with --debug, and report what it shows.")
        _fail(str(error) or type(error).__name__, hint=hint, code=FAILED)


def _fail(message: str, *, hint: str, code: int) -> None:
    typer.echo(f"insight: {message}\n  hint: {hint}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
