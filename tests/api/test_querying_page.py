"""docs/querying.md: what it shows is answered, what it refuses is refused, and nothing of a question is left out."""

from __future__ import annotations

import json
import re
from datetime import date

import httpx
import pytest
from pydantic import TypeAdapter

from api.cache import Reason
from api.catalog import DATE_PARTS, GRAINS
from api.filters import Operator
from api.periods import CompareTo, Preset, Unit, days, shift_to, shifted_back
from api.rest.requests import DateRangeBody, LastUnitsBody, PresetBody, QueryBody
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "querying.md").read_text(encoding="utf-8")
EXAMPLES: list[tuple[str, str]] = re.findall(r"^```json(?: refused: (\w+))?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
RANGES: list[tuple[str, ...]] = re.findall(
    r"^\| `(\{.*?\})` \| (\S+) \| (\S+) to (\S+) \| (\S+) to (\S+) \|$", PAGE, re.MULTILINE
)


@pytest.mark.parametrize(("code", "text"), EXAMPLES, ids=[code or "answered" for code, _ in EXAMPLES])
async def test_every_example_does_what_the_page_says(api: httpx.AsyncClient, code: str, text: str) -> None:
    response = await api.post("/v1/query", json=json.loads(text))

    if code:
        assert response.json()["code"] == code
    else:
        assert response.status_code == 200, response.text


def test_every_field_of_a_question_has_its_place_and_most_an_example() -> None:
    fields = set(QueryBody.model_fields)
    shown = {name for code, text in EXAMPLES if not code for name in json.loads(text)}

    assert set(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)) == fields
    assert shown == fields - {"offset", "cursor"}


@pytest.mark.parametrize(
    "words",
    [Operator, Preset, Unit, CompareTo, Reason, GRAINS, [f"extract_{part}" for part in DATE_PARTS]],
    ids=["operators", "presets", "units", "comparisons", "reasons", "grains", "parts"],
)
def test_every_word_of_a_closed_list_is_named(words: list[str]) -> None:
    assert [word for word in words if f"`{word}`" not in PAGE] == []


@pytest.mark.parametrize(("text", "as_of", *"abcd"), RANGES, ids=[f"{row[0]}-{row[1]}" for row in RANGES])
def test_the_ranges_compared_are_those_of_the_table(text: str, as_of: str, a: str, b: str, c: str, d: str) -> None:
    body: TypeAdapter[DateRangeBody | LastUnitsBody | PresetBody] = TypeAdapter(
        DateRangeBody | LastUnitsBody | PresetBody
    )
    time_range = body.validate_json(text).parsed()
    asked = days(time_range, date.max if as_of == "any" else date.fromisoformat(as_of))

    for compare_to, start, end in ((CompareTo.PREVIOUS_PERIOD, a, b), (CompareTo.SAME_PERIOD_LAST_YEAR, c, d)):
        earlier = shifted_back(asked, shift_to(compare_to, time_range, asked, is_by_week=False))
        assert (str(earlier.start), str(earlier.end)) == (start, end)


def test_the_table_has_ranges_and_the_page_examples() -> None:
    assert len(RANGES) == 8
    assert len(EXAMPLES) > 10


def test_codes_on_the_page_exist() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in (REPOSITORY / "api").rglob("*.py"))
    named = {"incomparable", "cursor_expired", "cursor_mismatch", "metric_filter_forbidden", "unknown_time_zone"}

    assert all(f"`{name}`" in PAGE or f"refused: {name}" in PAGE for name in named)
    assert all(f'code="{name}"' in code for name in named)
