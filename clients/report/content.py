"""What a report says: sections of texts made of answers. No number in it is computed here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from string import ascii_uppercase
from typing import Any

from clients.chatbot.columns import groups_of, metrics_of
from clients.figures import RATIO, figure, shown
from clients.report.errors import NothingToReport, Unsettled
from clients.report.periods import Period
from clients.report.questions import Question, Shape, questions_about
from clients.report.unusual import unusual
from clients.sdk import Answer, ApiError, Cell, Client, Column

_MOST_UNUSUAL = 5
_MOST_EXACT = 12  # rows of an answer that are listed digit by digit
_REFUSALS = range(400, 500)
_UNAUTHENTICATED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A curve: a number for each day."""

    label: str
    days: tuple[date, ...]
    values: tuple[Decimal, ...]
    marked: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table under a heading; the letter names the request that all of its numbers come from."""

    letter: str
    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    series: Series | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A request as it was sent, and what it was answered with, digit by digit."""

    letter: str
    title: str
    request: Mapping[str, Any]
    answer: Answer

    @property
    def body(self) -> str:
        """The body of `POST /v1/query`."""
        lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in self.request.items())
        return "{\n" + ",\n".join(lines) + "\n}"

    @property
    def exact(self) -> tuple[tuple[str, ...], ...]:
        """Names of columns, then rows; none of an answer that is too long to print."""
        if len(self.answer.rows) > _MOST_EXACT:
            return ()
        names = tuple(column["name"] for column in self.answer.columns)
        if len(self.answer.rows) == 1 and not groups_of(self.answer):
            (row,) = self.answer.rows
            return (("figure", "value"), *((name, _digits(row[name])) for name in names))
        return (names, *(tuple(_digits(row[name]) for name in names) for row in self.answer.rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One period, in sections."""

    period: Period
    before: Period | None
    as_of: date
    publication: str
    sections: tuple[Section, ...]
    sources: tuple[Source, ...]
    missing: tuple[str, ...]

    @property
    def is_unfinished(self) -> bool:
        """Whether the data end before the period does."""
        return self.as_of < self.period.end


def write_report(client: Client, period: Period) -> Report:
    """The report, all of one version of the data.

    Raises
    ------
    NothingToReport
        There are no data in the period, or none that the caller may see.
    Unsettled
        Versions were published faster than they could be read.
    ApiError
        The service cannot be reached, or the caller is nobody.
    """
    metrics = {metric["name"]: metric for metric in client.metrics()}
    questions, missing = questions_about(period, metrics)
    answered, refused = _asked_at_once(client, questions)
    if not answered:
        raise NothingToReport(
            "There is nothing for this report that you may see",
            hint="See `insight metrics`, and ask for a role that sees total_revenue.",
        )
    answers = [answer for _, answer in answered]
    meta = answers[0].meta
    if not any(map(_has_numbers, answers)):
        raise NothingToReport(f"There are no data in {period.name}", hint=f"The data end on {meta['as_of']}.")
    lettered = [(letter, *both) for letter, both in zip(ascii_uppercase, answered, strict=False)]
    return Report(
        period=period,
        before=_before(answers),
        as_of=date.fromisoformat(meta["as_of"]),
        publication=meta["publication"],
        sections=tuple(_section(*each) for each in lettered),
        sources=tuple(
            Source(letter=letter, title=question.title, request=question.request, answer=answer)
            for letter, question, answer in lettered
        ),
        missing=(*missing, *refused),
    )


def _asked_at_once(client: Client, questions: Sequence[Question]) -> tuple[list[tuple[Question, Answer]], list[str]]:
    """The answers, all of one version: they are asked for again where one was published meanwhile."""
    for _ in range(2):
        answered, refused = _asked(client, questions)
        if len({answer.meta["publication"] for _, answer in answered}) <= 1:
            return answered, refused
    raise Unsettled("The data changed while they were read", hint="Ask for the report again.")


def _asked(client: Client, questions: Sequence[Question]) -> tuple[list[tuple[Question, Answer]], list[str]]:
    """The answers, and the titles of what the caller may not ask."""
    answered, refused = [], []
    for question in questions:
        try:
            answered.append((question, client.query(question.request)))
        except ApiError as error:
            if error.status not in _REFUSALS or error.status == _UNAUTHENTICATED:
                raise
            refused.append(f"{question.title}: {error.message}")
    return answered, refused


def _has_numbers(answer: Answer) -> bool:
    names = [column["name"] for column in metrics_of(answer)]
    return any(row[name] for row in answer.rows for name in names)  # counts of nothing are noughts


def _before(answers: Sequence[Answer]) -> Period | None:
    """The earlier period that numbers are compared with, as the service says."""
    for answer in answers:
        if days := answer.meta["compared_with"]:
            start, end = date.fromisoformat(days["start"]), date.fromisoformat(days["end"])
            return Period(name=f"{start} to {end}", start=start, end=end)
    return None


def _section(letter: str, question: Question, answer: Answer) -> Section:
    match question.shape:
        case Shape.FIGURES:
            headings, rows = ("", "this period", "the period before", "change"), _figures(answer)
            return Section(letter=letter, title=question.title, headings=headings, rows=tuple(rows))
        case Shape.GROUPS:
            return _groups(letter, question, answer)
        case Shape.DAYS:
            return _days(letter, question, answer)


def _figures(answer: Answer) -> Iterator[tuple[str, ...]]:
    (row,) = answer.rows or ({column["name"]: None for column in answer.columns},)
    for column in metrics_of(answer):
        name, unit = column["name"], column["unit"]
        yield column["label"], shown(row[name], unit), shown(row.get(f"{name}__previous"), unit), _change(row, name)


def _change(row: Mapping[str, Cell], name: str) -> str:
    """How far it has moved, as the service computed it."""
    ratio = row.get(f"{name}__change_ratio")
    return f"{ratio * 100:+,.1f} %" if isinstance(ratio, Decimal | int) else "no data"


def _groups(letter: str, question: Question, answer: Answer) -> Section:
    metrics, (group,) = metrics_of(answer), groups_of(answer)
    return Section(
        letter=letter,
        title=question.title,
        headings=(group["label"], *map(_heading, metrics), f"change of {metrics[0]['label'].lower()}"),
        rows=tuple(
            (_name(row[group["name"]]), *_cells(row, metrics), _change(row, metrics[0]["name"])) for row in answer.rows
        ),
    )


def _days(letter: str, question: Question, answer: Answer) -> Section:
    """The curve of the first metric, and the days on which it lies far from the others."""
    metrics, (day,) = metrics_of(answer), groups_of(answer)
    first = metrics[0]
    rows = [row for row in answer.rows if row[first["name"]] is not None]
    values = [_number(row[first["name"]]) for row in rows]
    far = unusual(values)[:_MOST_UNUSUAL]
    series = Series(
        label=f"{first['label']} by day ({first['unit']})",
        days=tuple(date.fromisoformat(str(row[day["name"]])[:10]) for row in rows),
        values=tuple(values),
        marked=tuple(far),
    )
    return Section(
        letter=letter,
        title=question.title,
        headings=("day", *map(_heading, metrics)) if far else (),
        rows=tuple((str(series.days[place]), *_cells(rows[place], metrics)) for place in sorted(far)),
        note="Days whose revenue lies far from the median of the period, measured by the median deviation."
        if far
        else "No day lies far from the median of the period.",
        series=series,
    )


def _heading(column: Column) -> str:
    """The metric with its unit, which its cells leave out; a ratio's say that they are per cent."""
    label, unit = column["label"], column["unit"]
    return label if unit is None or unit == RATIO or unit.lower() in label.lower() else f"{label} ({unit})"


def _cells(row: Mapping[str, Cell], columns: Sequence[Column]) -> Iterator[str]:
    return (figure(row[column["name"]], column["unit"]) for column in columns)


def _name(value: Cell) -> str:
    return "(none)" if value is None else str(value)


def _number(value: Cell) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(int(value or 0))


def _digits(value: Cell) -> str:
    return "null" if value is None else str(value)
