"""`insight plan` and `insight ask`, as their users meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.scripted import always, scripted, submits
from tests.server import Server
from tests.test_cli import insight


@pytest.fixture
def access(running: Server, running_key: str) -> dict[str, str]:
    return {"INSIGHT_API_URL": running.url, "INSIGHT_API_KEY": running_key}


def test_each_line_is_planned_and_none_is_run(access: dict[str, str], tmp_path: Path) -> None:
    lines = [
        {"id": "a", "turns": ["revenue last month"], "as_of": "2019-07-10"},
        {"id": 2, "turns": ["revenue by month", "and for men?"], "as_of": "2019-12-31"},
        {"id": "c", "turns": ["growth"]},
        {"id": "d", "turns": ["why did revenue fall?"], "as_of": "2019-12-31"},
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")

    planned = insight("plan", str(tmp_path / "questions.jsonl"), **access)

    assert planned.returncode == 0, planned.stderr
    first, second, third, fourth = (json.loads(line) for line in planned.stdout.splitlines())
    assert first["request"] == {
        "metrics": ["total_revenue"],
        "time_range": {"start": "2019-06-01", "end": "2019-06-30"},
    }
    assert (second["id"], second["request"]["where"][0]["values"]) == (2, ["M"])
    assert (third["action"], len(third["choices"])) == ("clarify", 2)
    assert (fourth["action"], fourth["request"]) == ("refuse", None)
    assert set(first) >= {"id", "action", "request", "message", "choices"}


def test_a_line_that_is_no_question_is_named(access: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text('{"id": 1, "turns": ["revenue"]}\n{"id": 2}\n')

    planned = insight("plan", str(tmp_path / "questions.jsonl"), **access)

    assert planned.returncode == 2
    assert "line 2" in planned.stderr


def test_a_question_is_answered_with_a_sentence_and_its_number(access: dict[str, str]) -> None:
    asked = insight("ask", "how many orders in Chicago last month?", **access)

    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("Orders, where location is Chicago, from 2019-11-01 to 2019-11-30: ")
    assert asked.stdout.strip().endswith("transactions.")


def test_a_series_is_drawn_and_a_wider_answer_is_a_table(access: dict[str, str]) -> None:
    drawn = insight("ask", "revenue by month", **access)
    table = insight("ask", "revenue and orders by location", "only Chicago and California", **access)

    assert "12 rows" in drawn.stdout
    assert "Total revenue (USD)" in drawn.stdout
    assert "order_count" in table.stdout
    assert "New York" not in table.stdout


def test_what_is_unclear_or_unknown_fails_with_what_to_do(access: dict[str, str]) -> None:
    unclear, unknown = insight("ask", "growth", **access), insight("ask", "profit by month", **access)

    assert (unclear.returncode, unknown.returncode) == (1, 1)
    assert "Revenue growth, month on month" in unclear.stderr
    assert "“profit”" in unknown.stderr
    assert "Traceback" not in unclear.stderr + unknown.stderr


def test_the_plan_and_the_answer_come_as_json(access: dict[str, str]) -> None:
    told = json.loads(insight("ask", "orders", "--json", **access).stdout)

    assert told["answer"]["data"][0]["order_count"] > 0
    assert told["planner"] == "keyless"


def test_a_language_model_plans_where_one_is_set_up(access: dict[str, str]) -> None:
    plan = {"action": "query", "message": "", "request": {"metrics": ["units_sold"]}}
    missing = insight("ask", "orders", "--planner", "llm", **access)
    with scripted(always(submits(plan))) as model:
        given = access | {
            "INSIGHT_LLM_MODEL": "scripted",
            "OPENAI_BASE_URL": model.url,
            "INSIGHT_INTERNAL_HOSTS": "127.0.0.1",
        }
        told = json.loads(insight("ask", "how much went out?", "--json", **given).stdout)
        refused = insight("ask", "orders", **(given | {"INSIGHT_INTERNAL_HOSTS": ""}))

    assert (told["planner"], told["request"]) == ("llm", {"metrics": ["units_sold"]})
    assert missing.returncode == 1
    assert "INSIGHT_LLM_MODEL" in missing.stderr
    assert refused.returncode == 1
    assert "INSIGHT_INTERNAL_HOSTS" in refused.stderr
