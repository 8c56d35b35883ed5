"""The workers' commands: `insight generate`, `insight pipeline …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from workers.ingest import LoadProgress, LoadReport
    from workers.pipeline import Pipeline, Watcher
    from workers.transform import BuildProgress, BuildResult

commands = typer.Typer(no_args_is_help=True, help="Load, build, test and publish; go back; see what is published.")

AsJson = Annotated[bool, typer.Option("--json", help="The outcome as JSON on stdout.")]

# Progress goes to stderr, so that stdout stays clean for a script.
_console = Console(stderr=True)


def generate(
    out: Annotated[Path, typer.Option(help="Folder to write the five CSV files and `streams/` into.")],
    scale: Annotated[float, typer.Option(help="1 is 52,924 sales lines; 20 is a million.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 2019,
    as_json: AsJson = False,
) -> None:
    """Write synthetic shop data of the same shape as the real one, and recordings of Bitcoin prices and news."""
    from workers.generate import generate as generate_data
    from workers.generate_streams import generate_streams

    with _progress() as progress:
        task = progress.add_task("Generating", total=100)
        data = generate_data(
            out, scale=scale, seed=seed, progress=lambda percent: progress.update(task, completed=percent)
        )
    files = (*data.files, *generate_streams(out, seed=seed))
    rows = {file.path.relative_to(out).as_posix(): file.rows for file in files}
    typer.echo(json.dumps(rows) if as_json else "\n".join(f"{name}: {count:,} rows" for name, count in rows.items()))


@commands.command("run")
def run_pipeline(
    data: Annotated[Path, typer.Option(help="Folder with the CSV and XLSX files.")],
    if_changed: Annotated[
        bool, typer.Option("--if-changed", help="Build only if a file or a definition is new.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load what is new, build, test and publish."""
    pipeline = _pipeline()
    run = pipeline.run_if_changed if if_changed else pipeline.run
    with _progress() as progress:
        version = run(data, _watcher(progress))
    _tell_published(version, as_json=as_json)


@commands.command("publish")
def publish(as_json: AsJson = False) -> None:
    """Build, test and publish what is loaded already."""
    with _progress() as progress:
        version = _pipeline().publish(_watcher(progress))
    _tell_published(version, as_json=as_json)


@commands.command("refresh")
def refresh(as_json: AsJson = False) -> None:
    """Build, test and publish what new events feed; nothing, where there are none."""
    with _progress() as progress:
        version = _pipeline().refresh(_watcher(progress))
    _tell_published(version, as_json=as_json)


@commands.command("rollback")
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="The version to go back to; the one before, if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an older publication current."""
    _tell_published(_pipeline().rollback(version), as_json=as_json)


@commands.command("status")
def status(as_json: AsJson = False) -> None:
    """Show the publications that are kept, and which one serves."""
    store = _pipeline().store
    current = store.current()
    if as_json:
        typer.echo(json.dumps({"current": current, "versions": store.versions()}))
    elif not store.versions():
        typer.echo("Nothing is published yet. Run: insight pipeline run --data DIR")
    for version in () if as_json else store.versions():
        typer.echo(f"{'→' if version == current else ' '} {version}")


def _pipeline() -> Pipeline:
    from api.logs import configure_logging
    from api.settings import LogLevel
    from workers.pipeline import Pipeline
    from workers.settings import read_settings

    configure_logging(LogLevel.WARNING)  # else the candidate, as it is asked, would talk on stdout
    return Pipeline(read_settings())


def _tell_published(version: str, *, as_json: bool) -> None:
    typer.echo(json.dumps({"current": version}) if as_json else f"Current publication: {version}")


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=_console)


def _watcher(progress: Progress) -> Watcher:
    from workers.pipeline import Watcher

    load = progress.add_task("Loading files", total=None)
    build = progress.add_task("Building marts", total=None, start=False)

    def loading(now: LoadProgress) -> None:
        progress.update(load, total=now.bytes_total, completed=now.bytes_done, description=f"Loading {now.file_name}")

    def loaded(report: LoadReport) -> None:
        progress.update(load, description="Loaded files", total=1, completed=1)
        progress.console.print(_load_table(report))
        progress.start_task(build)

    def building(now: BuildProgress) -> None:
        progress.update(build, total=now.steps, completed=now.step, description=f"Building {now.node:.60}")

    def built(result: BuildResult) -> None:
        tests = f"{result.tests_passed} tests passed, {result.tests_warned} warned"
        progress.update(build, description=f"Built marts: {tests}", total=1, completed=1)
        for warning in result.warnings:
            progress.console.print(f"warning: {warning}", markup=False)

    return Watcher(loading=loading, loaded=loaded, building=building, built=built)


def _load_table(report: LoadReport) -> Table:
    table = Table("file", "kind", "status", "read", "loaded", "quarantined", "s", title="Load report", box=SIMPLE_HEAD)
    for file in report.files:
        counts = (f"{count:,}" for count in (file.rows_read, file.rows_loaded, file.rows_quarantined))
        table.add_row(file.file_name, file.kind or "?", file.status, *counts, f"{file.seconds:.1f}")
    return table
