"""`insight plan` and `insight ask`: questions in plain language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clients.connection import connected
from clients.planner.choosing import PlannerKind, chosen_planner
from clients.planner.plan import Action, Mode, Plan
from clients.planner.snapshot import take_snapshot
from clients.planner.wording import headline
from clients.render import render_chart, render_table
from clients.sdk import Answer, ApiError

_FEWEST_POINTS = 3  # of a chart; two bars are read sooner as a table
_MOST_POINTS = 60


class Question(BaseModel):
    """A line of the file: a conversation of which the last turn is to be planned."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str | int
    turns: list[str] = Field(min_length=1)
    as_of: date | None = None


def plan(
    file: Annotated[Path, typer.Argument(help="JSON lines of {id, turns, as_of}.", exists=True, dir_okay=False)],
    planner: Annotated[PlannerKind, typer.Option(help="Who plans.")] = PlannerKind.KEYLESS,
) -> None:
    """Plan questions without running them: a line of {id, action, request, message, choices} for each."""
    with connected() as client:
        snapshot = take_snapshot(client)
    planning = chosen_planner(planner, snapshot)
    from rich.console import Console
    from rich.progress import track

    # On a terminal alone, and beside the plans, which may go to a file.
    questions, progress = list(_questions(file)), Console(stderr=True)
    for question in track(questions, "Planning", console=progress, transient=True, disable=not progress.is_terminal):
        typer.echo(json.dumps({"id": question.id} | _body(planning.plan(question.turns, as_of=question.as_of))))


def ask(
    turns: Annotated[list[str], typer.Argument(help="The question; more turns of the conversation may follow.")],
    planner: Annotated[PlannerKind, typer.Option(help="Who plans.")] = PlannerKind.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="The plan and the answer, as JSON.")] = False,
) -> None:
    """Ask in plain language: what was understood, the number, and a table or chart."""
    with connected() as client:
        snapshot = take_snapshot(client)
        made = chosen_planner(planner, snapshot).plan(turns)
        if made.request is None:
            if as_json:
                typer.echo(json.dumps(_body(made)))
            raise _unanswered(made)
        answer = client.query(made.request)
    if as_json:
        typer.echo(json.dumps(_body(made) | {"answer": answer}, default=float))
    else:
        typer.echo(_shown(made, answer))


def _questions(file: Path) -> Iterator[Question]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield Question.model_validate_json(line)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise typer.BadParameter(f"{file}, line {number}: {place} {fault['msg']}".strip()) from error


def _body(made: Plan) -> dict[str, Any]:
    return {
        "action": made.action,
        "request": made.request,
        "message": made.message,
        "choices": list(made.choices),
        "planner": made.mode,
    }


def _unanswered(made: Plan) -> ApiError:
    if made.action is Action.CLARIFY:
        return ApiError(made.message, hint=f"Ask with one of: {', '.join(made.choices)}.", code="unclear")
    return ApiError(made.message, hint="Ask for metrics by name; `insight metrics` lists them.", code="unanswerable")


def _shown(made: Plan, answer: Answer) -> str:
    """The sentence, then a chart of a series of one metric, else a table; one number needs neither."""
    said = headline(made.message, answer)
    if made.mode is Mode.FALLBACK:
        said += "\n(The language model did not answer; this was planned without it.)"
    if len(answer.rows) == 1 and len(answer.columns) == 1:
        return said
    names = [column["name"] for column in answer.columns]
    is_series = len(names) == 2 and _FEWEST_POINTS <= len(answer.rows) <= _MOST_POINTS  # noqa: PLR2004 - axis and metric
    drawn = render_chart(answer.rows, columns=answer.columns) if is_series else render_table(answer.rows, columns=names)
    return f"{said}\n\n{drawn}"
