"""The planner that asks a language model, a scripted one over HTTP: what it says is checked, or done without."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import date

import pytest

from clients.planner import Action, KeylessPlanner, Mode, Snapshot
from clients.planner.llm import LlmPlanner
from clients.settings import LlmReplies, LlmSettings
from outgoing import AddressRefused
from tests.clients.asked import read_questions
from tests.clients.scripted import FAULTS, Line, Script, ScriptedModel, always, in_turn, scripted, submits

REVENUE = {
    "action": "query",
    "message": "",
    "request": {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]},
}
QUESTION = ("orders by category",)
TIMEOUT_S = 1.0


def settings(model: ScriptedModel, **given: object) -> LlmSettings:
    chosen = {"model": "scripted", "INSIGHT_INTERNAL_HOSTS": "127.0.0.1", "timeout_s": 20.0} | given
    return LlmSettings(OPENAI_BASE_URL=model.url, OPENAI_API_KEY="sk-canary", **chosen)


def planned(snapshot: Snapshot, script: Script, **given: object) -> tuple[object, ScriptedModel]:
    with scripted(script) as model:
        return LlmPlanner(snapshot, settings(model, **given)).plan(QUESTION), model


def test_a_submitted_plan_is_the_plan_in_our_own_words(snapshot: Snapshot) -> None:
    with scripted(always(submits(REVENUE | {"message": "Revenue was 5 billion"}))) as model:
        plan = LlmPlanner(snapshot, settings(model)).plan(["how do sales develop?"])

    assert (plan.action, plan.mode) == (Action.QUERY, Mode.LLM)
    assert plan.request == REVENUE["request"]
    assert plan.message == "Total revenue by month"


def test_the_model_is_told_the_catalog_the_day_and_the_conversation(snapshot: Snapshot) -> None:
    with scripted(always(submits(REVENUE))) as model:
        LlmPlanner(snapshot, settings(model)).plan(["revenue", "and by month?"], as_of=date(2019, 7, 10))

    (request,) = model.requests
    asked = request["messages"][1]["content"]
    assert "2019-07-10" in asked
    assert "and by month?" in asked
    assert all(name in asked for name in snapshot.metrics)
    submit = next(tool for tool in request["tools"] if tool["function"]["name"] == "submit_plan")
    schema = submit["function"]["parameters"]["properties"]["request"]["properties"]
    assert schema["metrics"]["items"]["enum"] == sorted(snapshot.metrics)
    assert "metric_time__extract_dow" in schema["group_by"]["items"]["enum"]


def test_values_are_looked_up_before_the_plan_is_submitted(snapshot: Snapshot) -> None:
    looks = Line(calls=(("dimension_values", {"dimension": "customer__location", "search": "new"}),))
    where = [{"field": "customer__location", "op": "eq", "values": ["New York"]}]
    plan_of_york = {"action": "query", "message": "", "request": {"metrics": ["order_count"], "where": where}}
    with scripted(in_turn(looks, submits(plan_of_york))) as model:
        plan = LlmPlanner(snapshot, settings(model)).plan(["orders in NY"])

    assert json.loads(model.requests[1]["messages"][-1]["content"]) == ["New Jersey", "New York"]
    assert plan.request == plan_of_york["request"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"metrics": ["profit"]}, "profit"),
        ({"metrics": ["marketing_spend"], "group_by": ["product__category"]}, "product category"),
        ({"metrics": ["total_revenue"], "where": [{"field": "customer__gender", "op": "eq", "values": ["X"]}]}, "'X'"),
        ({"metrics": ["total_revenue"], "where": ["1=1"]}, "where"),
        ({"metrics": ["total_revenue"], "sql": "select 1"}, "sql"),
        ({"metrics": ["total_revenue"], "limit": 10**9}, "limit"),
    ],
)
def test_a_wrong_plan_goes_back_once_with_the_error(snapshot: Snapshot, wrong: object, told: str) -> None:
    bad = submits({"action": "query", "message": "", "request": wrong})
    plan, model = planned(snapshot, in_turn(bad, submits(REVENUE)))
    twice, _ = planned(snapshot, always(bad))

    assert plan.mode is Mode.LLM
    assert told in model.requests[1]["messages"][-1]["content"]
    assert twice.mode is Mode.FALLBACK
    assert twice.request == {"metrics": ["order_count"], "group_by": ["product__category"]}


def test_a_server_without_tools_is_asked_for_json(snapshot: Snapshot) -> None:
    def script(body: dict[str, object], _: int) -> Line:
        return (
            Line(status=400) if "tools" in body else Line(content=f"Here it is:\n```json\n{json.dumps(REVENUE)}\n```")
        )

    plan, model = planned(snapshot, script)

    assert (plan.mode, plan.request) == (Mode.LLM, REVENUE["request"])
    assert [request.get("response_format") for request in model.requests] == [None, {"type": "json_object"}]


def test_json_is_asked_for_at_once_where_it_is_set(snapshot: Snapshot) -> None:
    plan, model = planned(snapshot, always(Line(content=json.dumps(REVENUE))), replies=LlmReplies.JSON)

    assert plan.request == REVENUE["request"]
    assert "tools" not in model.requests[0]


def test_a_model_that_writes_json_beside_its_tools_is_understood(snapshot: Snapshot) -> None:
    plan, _ = planned(snapshot, always(Line(content=json.dumps(REVENUE))))

    assert plan.request == REVENUE["request"]


def test_a_question_back_comes_without_links_and_markup(snapshot: Snapshot) -> None:
    said = {
        "action": "clarify",
        "message": "See ![x](https://evil.example/?q=secret) or <img src=//evil.example> www.evil.example",
        "choices": ["[revenue](javascript:alert(1))", "orders", "a", "b", "c"],
    }
    plan, _ = planned(snapshot, always(submits(said)))

    assert (plan.action, len(plan.choices)) == (Action.CLARIFY, 4)
    shown = f"{plan.message} {plan.choices}"
    assert not any(part in shown for part in ("evil", "javascript", "<", "[x", "](", "//"))


def test_six_calls_are_the_most(snapshot: Snapshot) -> None:
    looks = Line(calls=(("dimension_values", {"dimension": "customer__gender"}),))
    plan, model = planned(snapshot, always(looks))
    many, at_once = planned(snapshot, always(Line(calls=looks.calls * 7)))

    assert (plan.mode, many.mode) == (Mode.FALLBACK, Mode.FALLBACK)
    assert (len(model.requests), len(at_once.requests)) == (7, 1)


def test_the_tokens_of_a_plan_are_bounded(snapshot: Snapshot) -> None:
    talks = always(Line(content="a" * 9_000))
    long, _ = planned(snapshot, talks)
    poor, model = planned(snapshot, talks, max_tokens=1_000)

    assert (long.mode, poor.mode) == (Mode.FALLBACK, Mode.FALLBACK)
    assert model.requests == []  # the catalog alone is more


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_that_fails_is_done_without_in_time(snapshot: Snapshot, fault: str) -> None:
    begun = time.monotonic()
    plan, _ = planned(snapshot, FAULTS[fault], timeout_s=TIMEOUT_S)

    assert (plan.action, plan.mode) == (Action.QUERY, Mode.FALLBACK)
    assert plan.request == {"metrics": ["order_count"], "group_by": ["product__category"]}
    assert time.monotonic() - begun < TIMEOUT_S + 2


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_asked_a_model_that_fails_is_done_without_in_time(snapshot: Snapshot, fault: str) -> None:
    asked = [question for question in read_questions() if question.request][::10][:19]
    keyless = KeylessPlanner(snapshot)
    for question in asked:
        with scripted(FAULTS[fault]) as model:
            begun = time.monotonic()
            plan = LlmPlanner(snapshot, settings(model, timeout_s=0.5)).plan(question.turns, as_of=question.as_of)
            assert time.monotonic() - begun < 2.5
        assert plan == replace(keyless.plan(question.turns, as_of=question.as_of), mode=Mode.FALLBACK)
    assert len(asked) * len(FAULTS) >= 200


def test_nobody_at_the_address_is_done_without(snapshot: Snapshot) -> None:
    nobody = LlmSettings(OPENAI_BASE_URL="http://127.0.0.1:9/v1", model="m", INSIGHT_INTERNAL_HOSTS="127.0.0.1")

    assert LlmPlanner(snapshot, nobody).plan(QUESTION).mode is Mode.FALLBACK


def test_an_address_that_is_refused_is_an_error_and_no_fallback(snapshot: Snapshot) -> None:
    for url in ("http://127.0.0.1:9/v1", "https://localhost/v1", "https://2130706433/v1", "https://[::1", ""):
        inside = LlmSettings(OPENAI_BASE_URL=url, model="m")

        with pytest.raises(AddressRefused) as refused:
            LlmPlanner(snapshot, inside).plan(QUESTION)
        assert "INSIGHT_INTERNAL_HOSTS" in refused.value.hint


def test_the_key_is_in_no_text_of_the_settings(snapshot: Snapshot) -> None:
    with scripted(always(submits(REVENUE))) as model:
        assert "sk-canary" not in repr(settings(model))
