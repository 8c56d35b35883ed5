"""`insight ml …`: train a segmentation, judge it, promote it, go back, score the customers."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clients.sdk import Client
    from ml.features import FeatureTable
    from ml.outlook import Outlook
    from ml.registry import Registry
    from ml.train import Trained

commands = typer.Typer(
    no_args_is_help=True,
    help="Customer segments: train, judge, promote, go back, score. Asks the API that INSIGHT_API_URL names.",
)


class Recipe(StrEnum):
    """How to train."""

    DEFAULT = "default"
    PLAIN = "plain"


AsJson = Annotated[bool, typer.Option("--json", help="The outcome as JSON on stdout.")]
Models = Annotated[
    Path,
    typer.Option(
        "--models",
        envvar="INSIGHT_MODEL_DIR",
        help="Folder of the models; `models` beside the publications by default.",
    ),
]
_MODELS = Path(os.environ.get("INSIGHT_PUBLICATION_DIR", ".insight/publications")).with_name("models")


@commands.command("train")
def train(
    recipe: Annotated[Recipe, typer.Option(help="default: skewed features logged; plain: scaled only.")] = (
        Recipe.DEFAULT
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the starts.")] = 42,
    promote: Annotated[
        bool, typer.Option("--promote", help="Let it score from now on, if it passes the gate.")
    ] = False,
    models: Models = _MODELS,
    as_json: AsJson = False,
) -> None:
    """Train a model, judge it beside the promoted one, keep it with its card."""
    from dataclasses import replace

    from ml.card import illustrate
    from ml.model import CONFIGURATIONS
    from ml.registry import Registry
    from ml.train import train_and_register

    table, outlook = _learned()
    registry = Registry(models)
    configuration = replace(CONFIGURATIONS[recipe], seed=seed)
    with _step("Training and judging"):
        trained = train_and_register(
            table, registry, configuration, illustrate=lambda found, folder: illustrate(found, table, outlook, folder)
        )
    if promote:
        registry.promote(trained.model.version)
    _tell_trained(trained, registry, as_json=as_json)


@commands.command("evaluate")
def evaluate(
    version: Annotated[str | None, typer.Argument(help="A model; the promoted one, if left out.")] = None,
    card: Annotated[bool, typer.Option("--card", help="Write its card and plots, by these customers.")] = False,
    models: Models = _MODELS,
    as_json: AsJson = False,
) -> None:
    """Judge a model by the customers of today, what is foreseen by held-out months, and say whether they have moved."""
    from dataclasses import asdict

    from ml.card import illustrate
    from ml.evaluate import drift, judge
    from ml.registry import Registry
    from ml.train import Trained

    registry = Registry(models)
    model = registry.load(version or _promoted(registry))
    table, outlook = _learned()
    with _step("Judging"):
        quality, moved = judge(model, table), drift(model, table)
        if card:
            found = Trained(model=model, quality=quality, checks=registry.checks(model.version))
            illustrate(found, table, outlook, registry.folder(model.version))
    if as_json:
        told = {"model": model.version, "quality": asdict(quality), "drift": dict(moved)}
        backtests = {about: test.document() | {"is_proven": test.is_proven} for about, test in outlook.backtests()}
        typer.echo(json.dumps(told | {"backtests": backtests, "notes": outlook.notes}))
        return
    typer.echo(f"Model {model.version}, by {len(table.customer_ids):,} customers as of {table.as_of}")
    _tell_judged(asdict(quality), moved, outlook)
    if card:
        typer.echo(f"Card: {registry.folder(model.version) / 'card.md'}")


@commands.command("promote")
def promote(
    version: Annotated[str, typer.Argument(help="A model, as `insight ml status` lists them.")],
    models: Models = _MODELS,
) -> None:
    """Let a model that passes the gate score from the next publication on."""
    from ml.registry import Registry

    Registry(models).promote(version)
    typer.echo(f"Promoted: {version}\nIt scores from the next publication on: insight pipeline publish")


@commands.command("rollback")
def rollback(
    version: Annotated[
        str | None, typer.Argument(help="A model that was promoted; the one before, if left out.")
    ] = None,
    models: Models = _MODELS,
) -> None:
    """Go back to a model that was promoted before."""
    from ml.registry import Registry

    typer.echo(f"Promoted: {Registry(models).rollback(version)}")


@commands.command("status")
def status(models: Models = _MODELS, as_json: AsJson = False) -> None:
    """Show the models that are kept, and which one scores."""
    from ml.registry import Registry

    registry = Registry(models)
    promoted = registry.promoted()
    if as_json:
        typer.echo(json.dumps({"promoted": promoted, "versions": registry.versions()}))
        return
    for version in registry.versions():
        typer.echo(f"{'→' if version == promoted else ' '} {version}  {registry.folder(version)}")
    if not registry.versions():
        typer.echo("No model is trained yet. Run: insight ml train, or insight pipeline run")


@commands.command("score")
def score(
    out: Annotated[Path, typer.Option(help="Write the customers' segments to this file, as dbt's seed has them.")],
    version: Annotated[str | None, typer.Argument(help="A model; the promoted one, if left out.")] = None,
    models: Models = _MODELS,
    as_json: AsJson = False,
) -> None:
    """Put every customer into a segment, as CSV."""
    from ml.registry import Registry

    registry = Registry(models)
    model = registry.load(version or _promoted(registry))
    table = _features()
    half = out.with_name(f"{out.name}.part")
    half.write_bytes(model.seed(table))
    half.replace(out)
    customers = len(table.customer_ids)
    told: dict[str, Any] = {"model": model.version, "customers": customers, "out": str(out)}
    typer.echo(json.dumps(told) if as_json else f"{customers:,} customers scored by {model.version}: {out}")


def _features() -> FeatureTable:
    from ml.features import read_features

    with _step("Reading features"), _client() as client:
        return read_features(client)


def _learned() -> tuple[FeatureTable, Outlook]:
    """The features of the customers, and what is foreseen of them."""
    from ml.history import read_history
    from ml.outlook import look_ahead

    table = _features()
    with _step("Reading purchases and daily metrics"), _client() as client:
        history = read_history(client)
    with _step("Looking ahead, and back"):
        return table, look_ahead(history)


def _client() -> Client:
    from clients.sdk import Client

    url = os.environ.get("INSIGHT_API_URL", "http://127.0.0.1:8000").rstrip("/")
    return Client(url, key=os.environ.get("INSIGHT_API_KEY"))


def _step(text: str) -> Any:  # noqa: ANN401 - a context manager of rich
    from rich.console import Console

    return Console(stderr=True).status(text)  # stdout stays clean for a script


def _promoted(registry: Registry) -> str:
    from ml.errors import UnknownModelError

    promoted = registry.promoted()
    if promoted is None:
        raise UnknownModelError("No model is promoted yet", hint="insight ml train --promote, or insight pipeline run")
    return promoted


def _tell_judged(quality: Mapping[str, float], moved: Mapping[str, float], outlook: Outlook) -> None:
    from ml.evaluate import DRIFT_LIMIT
    from ml.outlook_card import summary

    for name, value in quality.items():
        typer.echo(f"  {name.replace('_', ' '):<16} {value:,.4g}")
    for name, value in moved.items():
        verdict = "has moved: train again" if value > DRIFT_LIMIT else "as in training"
        typer.echo(f"  drift of {name:<16} {value:.3f}  {verdict}")
    typer.echo(f"Back-tests on held-out months{'error':>16}{'baseline':>12}")
    for line in summary(outlook):
        typer.echo(f"  {line}")


def _tell_trained(trained: Trained, registry: Registry, *, as_json: bool) -> None:
    from dataclasses import asdict

    model, folder = trained.model, registry.folder(trained.model.version)
    if as_json:
        gate = [asdict(check) for check in trained.checks]
        told = {"model": model.version, "folder": str(folder), "quality": asdict(trained.quality), "gate": gate}
        typer.echo(json.dumps(told | {"promoted": registry.promoted()}))
        return
    typer.echo(f"Trained {model.version} on {model.customers:,} customers as of {model.as_of}")
    for check in trained.checks:
        typer.echo(f"  {'passed' if check.is_passed else 'FAILED'}  {check}")
    typer.echo(f"  card    {folder / 'card.md'}")
    if registry.promoted() != model.version and trained.is_fit:
        typer.echo(f"To let it score: insight ml promote {model.version}")
