"""What an answer looks like: its sentence, its chart, its pieces, its request elsewhere."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from clients.chatbot.pictures import Kind, kind_of, vega
from clients.chatbot.requests import NotInGraphql, graphql_of, rest_of
from clients.chatbot.saying import said
from clients.chatbot.understood import chips_of, without
from clients.chatbot.views.plain import label
from clients.figures import shown
from clients.planner import Snapshot
from clients.sdk import Client
from tests.server import Server

MONTHLY = {"metrics": ["total_revenue"], "group_by": ["metric_time__month"]}
FULL: dict[str, Any] = {
    "metrics": ["total_revenue", "units_sold"],
    "group_by": ["metric_time__month", "customer__location"],
    "where": [
        {"field": "customer__gender", "op": "eq", "values": ["F"]},
        {"any_of": [
            {"field": "product__category", "op": "in", "values": ["Apparel", "Nest-USA"]},
            {"field": "sale__coupon_status", "op": "ne", "values": ["Used"]},
        ]},
    ],
    "time_range": {"start": "2019-03-01", "end": "2019-06-30"},
    "order_by": [{"field": "units_sold", "descending": True}],
    "limit": 7,
}  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"metrics": ["total_revenue"]}, Kind.NUMBER),
        ({"metrics": ["total_revenue", "units_sold"]}, Kind.NUMBER),
        (MONTHLY, Kind.LINE),
        ({"metrics": ["total_revenue"], "group_by": ["metric_time__month", "customer__location"]}, Kind.LINE),
        ({"metrics": ["total_revenue"], "group_by": ["product__category"]}, Kind.BAR),
        ({"metrics": ["total_revenue"], "group_by": ["metric_time__extract_dow"]}, Kind.BAR),
        ({"metrics": ["total_revenue"], "group_by": ["product__category", "customer__location"]}, Kind.TABLE),
        ({"metrics": ["total_revenue"], "group_by": ["metric_time__day", "product__category"]}, Kind.TABLE),
    ],
)
def test_the_chart_fits_the_answer(client: Client, request_: dict[str, Any], kind: Kind) -> None:
    answer = client.query(request_)

    assert kind_of(answer) is kind
    assert (vega(answer) is None) == (kind in (Kind.NUMBER, Kind.TABLE))


def test_a_chart_holds_every_number_and_fetches_nothing(client: Client) -> None:
    answer = client.query(MONTHLY)
    spec = vega(answer)

    assert spec is not None
    assert [point["y"] for point in spec["data"]["values"]] == [float(row["total_revenue"]) for row in answer.rows]  # type: ignore[arg-type]
    assert "url" not in json.dumps(spec)


def test_a_metric_of_another_unit_is_not_drawn_on_the_same_axis(client: Client) -> None:
    spec = vega(client.query({"metrics": ["total_revenue", "units_sold"], "group_by": ["metric_time__month"]}))

    assert spec is not None
    assert {point["series"] for point in spec["data"]["values"]} == {"Total revenue"}


def test_the_sentence_has_the_number(client: Client) -> None:
    one = client.query({"metrics": ["units_sold"]})
    by_month = client.query(MONTHLY)
    highest = max(by_month.rows, key=lambda row: row["total_revenue"])  # type: ignore[arg-type, return-value]

    assert said("Units sold", one) == f"Units sold: {one.rows[0]['units_sold']:,} units."
    text = said("Total revenue by month", by_month)
    assert f"highest {shown(highest['total_revenue'], 'USD')} ({highest['metric_time__month']})" in text
    assert text.endswith("; 12 rows.")


def test_a_comparison_says_which_way_it_went(client: Client) -> None:
    days = {"start": "2019-11-01", "end": "2019-11-30"}
    answer = client.query({"metrics": ["total_revenue"], "time_range": days, "compare_to": "previous_period"})
    (row,) = answer.rows

    text = said("Total revenue", answer)

    assert (", up " if row["total_revenue__change"] > 0 else ", down ") in text  # type: ignore[operator]
    assert f"from {shown(row['total_revenue__previous'], 'USD')}" in text


def test_a_share_is_said_in_per_cent_and_nothing_is_no_data(client: Client) -> None:
    rate = client.query({"metrics": ["coupon_usage_rate"]})
    nothing = client.query(MONTHLY | {"time_range": {"start": "2001-01-01", "end": "2001-01-31"}})

    assert said("Rate", rate) == f"Rate: {rate.rows[0]['coupon_usage_rate'] * 100:,.1f} %."  # type: ignore[operator]
    assert said("Revenue", nothing) == "Revenue: no data."


def test_every_piece_of_a_request_is_a_chip_in_words(snapshot: Snapshot) -> None:
    texts = [chip.text for chip in chips_of(FULL | {"compare_to": "previous_period"}, snapshot)]

    assert texts[:4] == ["Total revenue", "Units sold", "by month", "by location"]
    assert "where gender is F" in texts
    assert "from 2019-03-01 to 2019-06-30" in texts
    assert "the first 7" in texts
    assert len(texts) == 10


def test_what_depends_on_a_piece_goes_with_it(client: Client, snapshot: Snapshot) -> None:
    request = FULL | {"having": [{"field": "units_sold", "op": "gt", "values": [0]}]}
    for chip in chips_of(request, snapshot):
        less = without(request, [chip])
        assert less is not None
        client.query(less)  # whatever is taken away, what is left can be asked
    units = next(chip for chip in chips_of(request, snapshot) if chip.text == "Units sold")
    left = without(request, [units])

    assert left is not None
    assert not left.keys() & {"order_by", "having"}
    assert without(MONTHLY, chips_of(MONTHLY, snapshot)) is None


@pytest.mark.parametrize(
    "request_",
    [
        MONTHLY,
        FULL,
        {"metrics": ["line_count"], "group_by": ["metric_time__extract_dow"]},
        {"metrics": ["units_sold"], "where": [{"not": {"field": "customer__location", "op": "is_null", "values": []}}]},
        {
            "metrics": ["units_sold"],
            "where": [{"field": "customer__location", "op": "eq", "values": ['L\'Aquila "x"']}],
        },
    ],
)
def test_the_shown_graphql_answers_what_rest_answers(
    client: Client, running: Server, running_key: str, request_: dict[str, Any]
) -> None:
    with running.client(running_key) as http:
        body = http.post("/graphql", json={"query": graphql_of(request_)}).json()

    assert "errors" not in body
    rows = body["data"]["createSynchronousQuery"]["rows"]
    assert json.loads(json.dumps(rows)) == json.loads(json.dumps(client.query(request_).rows, default=float))


def test_what_graphql_cannot_say_is_said() -> None:
    with pytest.raises(NotInGraphql, match="compare_to"):
        graphql_of(FULL | {"compare_to": "previous_period"})


def test_the_shown_command_works_as_it_stands(client: Client, running: Server, running_key: str) -> None:
    request = MONTHLY | {"where": [{"field": "customer__location", "op": "ne", "values": ["it's $HOME `x`"]}]}
    command = rest_of(request, running.url)
    environment = {"INSIGHT_API_KEY": running_key, "PATH": "/usr/bin:/bin"}

    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, check=True)

    assert len(json.loads(done.stdout)["data"]) == len(client.query(request).rows)


@pytest.mark.parametrize(
    "text", ["![x](https://evil.example/p.png)", "www.evil.example", "<b>", "[a](b)", "a@b.example"]
)
def test_nothing_from_outside_becomes_a_link_or_a_picture(text: str) -> None:
    shown = label(text)

    assert "](" not in shown
    assert "://e" not in shown
    assert "www.evil" not in shown
    assert "@b" not in shown
