"""A report of a period: every number in it stands in the answer to a request that it lists."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from pypdf import PdfReader

from clients.figures import figure
from clients.report.content import Report, Section, write_report
from clients.report.errors import NothingToReport, UnreadablePeriod
from clients.report.pages import Format, rendered
from clients.report.periods import read_period
from clients.report.unusual import unusual
from clients.sdk import Answer, ApiError, Client
from tests.server import Server
from tests.test_cli import insight

BODY = re.compile(r"```json\n(.+?)\n```", re.DOTALL)
SECTION = re.compile(r"^## [^\n]+ \(([A-Z])\)\n(.*?)(?=^## |^Each letter)", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?(?: %)?")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
HOSTILE = "![x](https://evil.example/p.png) <img src=//evil.example> | a | {{ 7 * 7 }} `b`"


@pytest.fixture(scope="module")
def report(running: Server, running_key: str) -> Report:
    with Client(running.url, key=running_key) as client:
        return write_report(client, read_period("2019-12"))


@pytest.fixture(scope="module")
def text(report: Report) -> str:
    return rendered(report, Format.MD).decode()


def printable(answer: Answer) -> Iterator[str]:
    """Every way in which a number of the answer may be written."""
    for row in answer.rows:
        for column in answer.columns:
            value = row[column["name"]]
            if isinstance(value, Decimal | int):
                yield from (figure(value, unit) for unit in ("ratio", "USD", None))
                yield f"{value * 100:+,.1f} %"


def test_every_number_stands_in_the_answer_to_the_listed_request(text: str, client: Client) -> None:
    page, _, appendix = text.partition("# The requests")
    bodies = [json.loads(found) for found in BODY.findall(appendix)]
    answers = dict(zip("ABCDEFGH", (client.query(body) for body in bodies), strict=False))
    checked = 0
    for letter, section in SECTION.findall(page):
        known = set(printable(answers[letter]))
        numbers = NUMBER.findall(DAY.sub("", section))
        assert set(numbers) <= known, (letter, set(numbers) - known)
        checked += len(numbers)

    assert len(bodies) == len(SECTION.findall(page)) == 6
    assert checked > 60
    around = DAY.sub("", SECTION.sub("", page)).replace("report 2019-12", "")
    assert NUMBER.findall(re.sub(r"version \S+", "", around)) == []


def test_money_has_its_cents_and_rates_are_per_cent(report: Report) -> None:
    figures = {row[0]: row[1:] for section in report.sections for row in section.rows if len(row) == 4}

    assert re.fullmatch(r"[\d,]+\.\d\d USD per transaction", figures["Average order value"][0])
    assert all(re.search(r"\d %$|no data", cell) for cell in figures["Return on ad spend"])


def test_what_a_page_rounds_the_appendix_has_digit_by_digit(report: Report, text: str, client: Client) -> None:
    (row,) = client.query(report.sources[0].request).rows

    assert isinstance(row["total_revenue"], Decimal)
    assert f"| total\\_revenue | {row['total_revenue']} |" in text


def test_all_formats_say_the_same(report: Report, text: str) -> None:
    page = rendered(report, Format.HTML).decode()
    pdf = PdfReader(io.BytesIO(rendered(report, Format.PDF)))
    first, whole = pdf.pages[0].extract_text(), " ".join(each.extract_text() for each in pdf.pages)

    for section in report.sections:
        assert section.title in first
        for cell in (cell for row in section.rows for cell in row):
            assert cell in page
            assert all(word in first for word in cell.split())
    assert "Each letter names" in first  # one page, then what it rests on
    assert '"compare_to": "previous_period"' in whole
    assert len(pdf.pages[0].images) == 1
    assert 'src="data:image/png' in page
    assert "http" not in re.sub(r"<meta http-equiv[^>]+>", "", page)


class Tags(HTMLParser):
    """Every tag of a page, and all of its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        self.found.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("format_", [Format.MD, Format.HTML])
def test_a_value_is_shown_letter_by_letter(report: Report, format_: Format) -> None:
    hostile = Section(letter="G", title=HOSTILE, headings=(HOSTILE, "n"), rows=((HOSTILE, "1"),), note=HOSTILE)
    written = rendered(replace(report, sections=(hostile,), missing=(HOSTILE,)), format_).decode()
    if format_ is Format.MD:  # as a reader would show it who trusts HTML and makes addresses links
        written = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(written)
    page = Tags(written)

    assert not page.found & {"a", "img", "script", "iframe"}
    assert page.text.replace("\N{WORD JOINER}", "").count(HOSTILE) >= 5
    assert "://evil" not in page.text


def test_a_role_that_sees_less_gets_less_and_is_told(running: Server) -> None:
    with Client(running.url, key=running.key(role="narrow")) as client:
        seen = write_report(client, read_period("2019-12"))

    assert [section.title for section in seen.sections] == [
        "Revenue and growth", "Unusual days", "Categories with the highest revenue",
    ]  # fmt: skip
    assert "Segments" in seen.missing
    assert "- Segments" in rendered(seen, Format.MD).decode()


def test_a_role_with_row_filters_gets_its_own_rows(running: Server, report: Report) -> None:
    with Client(running.url, key=running.key(role="chicago")) as client:
        seen = write_report(client, read_period("2019-12"))

    (places,) = (section for section in seen.sections if section.title.startswith("Locations"))
    assert [row[0] for row in places.rows] == ["Chicago"]
    assert seen.sections[0].rows[0] != report.sections[0].rows[0]


def test_a_period_without_data_and_a_period_that_is_none_are_said(client: Client) -> None:
    with pytest.raises(NothingToReport, match="no data in 2031-02") as nothing:
        write_report(client, read_period("2031-02"))
    assert "2019-12-31" in nothing.value.hint
    for wrong in ("2019-13", "2019-Q5", "December", "2019-00", "0000-01", "2019-H0", "", "19"):
        with pytest.raises(UnreadablePeriod):
            read_period(wrong)


@pytest.mark.parametrize(
    ("written", "start", "end"),
    [
        ("2019-02", date(2019, 2, 1), date(2019, 2, 28)),
        ("2020-2", date(2020, 2, 1), date(2020, 2, 29)),
        ("2019-q4", date(2019, 10, 1), date(2019, 12, 31)),
        ("2019-H1", date(2019, 1, 1), date(2019, 6, 30)),
        ("2019", date(2019, 1, 1), date(2019, 12, 31)),
    ],
)
def test_months_quarters_halves_and_years_are_periods(written: str, start: date, end: date) -> None:
    period = read_period(written)

    assert (period.start, period.end) == (start, end)


def test_a_day_stands_out_where_it_lies_far_from_the_median_alone() -> None:
    usual = [Decimal(100 + place % 7) for place in range(30)]

    assert unusual(usual) == []
    assert unusual([*usual[:9], Decimal(900), *usual[10:20], Decimal(-300), *usual[21:]]) == [9, 20]
    assert unusual([Decimal(1)] * 30) == []
    assert unusual([Decimal(1), Decimal(1_000)]) == []


def test_a_period_that_still_runs_is_called_unfinished(report: Report) -> None:
    unfinished = rendered(replace(report, as_of=date(2019, 12, 20)), Format.MD).decode()

    assert "The period is not over: the data end on 2019-12-20" in unfinished
    assert "not over" not in rendered(report, Format.MD).decode()


def test_the_command_writes_the_file_in_the_format_of_its_name(
    running: Server, running_key: str, tmp_path: Path
) -> None:
    out = tmp_path / "december.pdf"

    access = {"INSIGHT_API_URL": running.url, "INSIGHT_API_KEY": running_key}
    written = insight("report", "--period", "2019-12", "--out", str(out), **access)
    wrong = insight("report", "--period", "2019-31", **access)

    assert written.returncode == 0, written.stderr
    assert out.read_bytes().startswith(b"%PDF-")
    assert wrong.returncode == 1
    assert "Write 2019-12, 2019-Q4, 2019-H2 or 2019." in wrong.stderr


def test_nobody_gets_no_report(running: Server) -> None:
    with Client(running.url, key="mi_no_key") as client, pytest.raises(ApiError):
        write_report(client, read_period("2019-12"))
