"""Queries that are wrong, each in one way, with the status and the code of the refusal."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]


def where(field: str, op: str, *values: object) -> Body:
    return {"metrics": ["line_count"], "where": [{"field": field, "op": op, "values": values}]}


def having(field: str, op: str, *values: object) -> Body:
    return {"metrics": ["line_count"], "having": [{"field": field, "op": op, "values": values}]}


def nested(group: str, levels: int) -> Body:
    leaf: Body = {"field": "customer__gender", "op": "eq", "values": ["F"]}
    for _ in range(levels):
        leaf = {group: leaf} if group == "not" else {group: [leaf]}
    return {"metrics": ["line_count"], "where": [leaf]}


FEMALE: Body = {"field": "customer__gender", "op": "eq", "values": ["F"]}
GROWTH: Body = {"metrics": ["revenue_growth_mom"], "group_by": ["metric_time__month"]}
CUT: Body = {"start": "2019-02-10", "end": "2019-04-30"}

REFUSED: tuple[tuple[str, Body, int, str], ...] = (
    ("an unknown metric", {"metrics": ["total_revenu"]}, 404, "unknown_metric"),
    ("an unknown group-by", {"metrics": ["line_count"], "group_by": ["customer__gendr"]}, 404, "unknown_dimension"),
    ("an unknown filter field", where("customer__gendr", "eq", "F"), 404, "unknown_dimension"),
    ("a metric in upper case", {"metrics": ["LINE_COUNT"]}, 404, "unknown_metric"),
    ("a grain alone", {"metrics": ["line_count"], "group_by": ["month"]}, 404, "unknown_dimension"),
    ("a metric as a group-by", {"metrics": ["line_count"], "group_by": ["units_sold"]}, 422, "invalid_query"),
    ("a metric in where", where("line_count", "gt", 1), 422, "invalid_query"),
    ("nothing", {}, 422, "invalid_query"),
    (
        "a dimension that does not join",
        {"metrics": ["marketing_spend"], "group_by": ["customer__gender"]},
        422,
        "dimension_not_joinable",
    ),
    ("a filter that does not join", where("news__category", "eq", "x"), 422, "dimension_not_joinable"),
    ("metric_time without a metric", {"group_by": ["metric_time__month"]}, 422, "dimension_not_joinable"),
    ("a time range without a metric", {"group_by": ["customer"], "time_range": CUT}, 422, "dimension_not_joinable"),
    ("dimensions of two models", {"group_by": ["customer__gender", "product__category"]}, 422, "unanswerable"),
    (
        "a grain finer than the data",
        {"metrics": ["line_count"], "group_by": ["metric_time__hour"]},
        422,
        "invalid_grain",
    ),
    ("a grain that does not compare", GROWTH | {"group_by": ["metric_time__week"]}, 422, "invalid_grain"),
    ("no such grain", {"metrics": ["line_count"], "group_by": ["metric_time__decade"]}, 404, "unknown_dimension"),
    (
        "a grain on a categorical dimension",
        {"metrics": ["line_count"], "group_by": ["customer__gender__month"]},
        422,
        "invalid_grain",
    ),
    ("a number for a text", where("customer__gender", "eq", 1), 422, "invalid_value"),
    ("true for a text", where("customer__gender", "eq", *[True]), 422, "invalid_value"),
    ("a text for an integer", where("customer__tenure_months", "eq", "12"), 422, "invalid_value"),
    ("a fraction for an integer", where("customer__tenure_months", "eq", 12.5), 422, "invalid_value"),
    ("true for an integer", where("customer__tenure_months", "eq", *[True]), 422, "invalid_value"),
    ("an integer beyond 64 bits", where("customer__tenure_months", "eq", 2**63), 422, "invalid_value"),
    ("1 for a boolean", where("calendar_date__is_weekend", "eq", 1), 422, "invalid_value"),
    ("a text for a boolean", where("calendar_date__is_weekend", "eq", "true"), 422, "invalid_value"),
    ("a number for a day", where("metric_time__day", "eq", 20190101), 422, "invalid_value"),
    ("no day of the calendar", where("metric_time__day", "eq", "2019-02-30"), 422, "invalid_value"),
    ("a time for a day", where("metric_time__day", "eq", "2019-02-03T10:00:00"), 422, "invalid_value"),
    (
        "a time out of the calendar",
        {"group_by": ["bitcoin__event_at__hour"]}
        | {"where": [{"field": "bitcoin__event_at__hour", "op": "gt", "values": ["0001-01-01T00:00:00+14:00"]}]},
        422,
        "invalid_value",
    ),
    ("a text for a number", having("line_count", "gt", "12"), 422, "invalid_value"),
    ("true for a number", having("line_count", "gt", *[True]), 422, "invalid_value"),
    ("a number too large", having("line_count", "gt", 1e30), 422, "invalid_value"),
    ("NUL in a text", where("customer__gender", "eq", "a\0b"), 422, "invalid_value"),
    ("a text operator on a number", where("customer__tenure_months", "contains", "1"), 422, "invalid_operator"),
    ("a text operator on a metric", having("line_count", "starts_with", "1"), 422, "invalid_operator"),
    ("an order of booleans", where("calendar_date__is_weekend", "lt", *[True]), 422, "invalid_operator"),
    ("no such operator", where("customer__gender", "like", "F"), 422, "malformed_request"),
    ("eq without a value", where("customer__gender", "eq"), 422, "invalid_value_count"),
    ("eq with two values", where("customer__gender", "eq", "F", "M"), 422, "invalid_value_count"),
    ("in without a value", where("customer__gender", "in"), 422, "invalid_value_count"),
    ("between with one value", where("customer__tenure_months", "between", 1), 422, "invalid_value_count"),
    ("is_null with a value", where("customer__gender", "is_null", "F"), 422, "invalid_value_count"),
    ("a null as a value", where("customer__gender", "eq", None), 422, "malformed_request"),
    ("a list as a value", where("customer__gender", "eq", ["F"]), 422, "malformed_request"),
    ("a metric twice", {"metrics": ["line_count", "line_count"]}, 422, "duplicate_name"),
    (
        "a group-by twice, once by its short name",
        {"metrics": ["line_count"], "group_by": ["metric_time", "metric_time__day"]},
        422,
        "duplicate_name",
    ),
    (
        "two orders of one field",
        {"metrics": ["line_count"], "order_by": [{"field": "line_count"}, {"field": "line_count", "descending": True}]},
        422,
        "duplicate_name",
    ),
    ("11 metrics", {"metrics": [f"m{n}" for n in range(11)]}, 422, "query_too_complex"),
    ("9 group-bys", {"group_by": [f"d{n}" for n in range(9)]}, 422, "query_too_complex"),
    ("21 filters", {"metrics": ["line_count"], "where": [FEMALE] * 21}, 422, "query_too_complex"),
    (
        "21 filters in groups",
        {"metrics": ["line_count"], "where": [{"any_of": [FEMALE] * 10}, {"not": {"all_of": [FEMALE] * 11}}]},
        422,
        "query_too_complex",
    ),
    ("1,001 values", where("customer", "in", *range(1_001)), 422, "query_too_complex"),
    ("11 negations within each other", nested("not", 11), 422, "query_too_complex"),
    ("60 groups within each other", nested("any_of", 60), 422, "query_too_complex"),
    ("200 negations within each other", nested("not", 200), 422, "query_too_complex"),
    ("300 negations within each other", nested("not", 300), 422, "malformed_request"),
    ("an empty group", {"metrics": ["line_count"], "where": [{"any_of": []}]}, 422, "malformed_request"),
    (
        "a filter that is two things",
        {"metrics": ["line_count"], "where": [FEMALE | {"not": FEMALE}]},
        422,
        "malformed_request",
    ),
    ("having on a metric not asked", having("units_sold", "gt", 1), 422, "invalid_having"),
    ("having on a dimension", having("customer__gender", "eq", 1), 422, "invalid_having"),
    (
        "an order by what is not asked",
        {"metrics": ["line_count"], "order_by": [{"field": "units_sold"}]},
        422,
        "invalid_order",
    ),
    (
        "an order by a time without the grain where two are asked for",
        {
            "metrics": ["line_count"],
            "group_by": ["metric_time__month", "metric_time__day"],
            "order_by": [{"field": "metric_time"}],
        },
        422,
        "invalid_order",
    ),
    ("a limit of 0", {"metrics": ["line_count"], "limit": 0}, 422, "malformed_request"),
    ("a limit of 1.5", {"metrics": ["line_count"], "limit": 1.5}, 422, "malformed_request"),
    ("a limit that is a text", {"metrics": ["line_count"], "limit": "1"}, 422, "malformed_request"),
    ("a limit that is true", {"metrics": ["line_count"], "limit": True}, 422, "malformed_request"),
    ("a limit beyond the most", {"metrics": ["line_count"], "limit": 50_001}, 422, "invalid_limit"),
    ("a limit beyond 64 bits", {"metrics": ["line_count"], "limit": 10**30}, 422, "invalid_limit"),
    ("a negative offset", {"metrics": ["line_count"], "offset": -1}, 422, "malformed_request"),
    ("an offset beyond 2**53", {"metrics": ["line_count"], "offset": 2**53 + 1}, 422, "malformed_request"),
    ("a range that cuts a compared period", GROWTH | {"time_range": CUT}, 422, "partial_period"),
    ("growth without time", {"metrics": ["revenue_growth_mom"]}, 422, "metric_time_required"),
    ("month to date without time", {"metrics": ["revenue_mtd"]}, 422, "metric_time_required"),
    (
        "a running total of a range without time",
        {"metrics": ["cumulative_revenue"], "time_range": {"last": 3, "unit": "month"}},
        422,
        "metric_time_required",
    ),
    (
        "a range that ends first",
        {"metrics": ["line_count"], "time_range": {"start": "2019-02-01", "end": "2019-01-01"}},
        422,
        "invalid_time_range",
    ),
    (
        "a range with a number",
        {"metrics": ["line_count"], "time_range": {"start": 0, "end": 1}},
        422,
        "malformed_request",
    ),
    (
        "a range with a time",
        {"metrics": ["line_count"], "time_range": {"start": "2019-01-01T00:00:00", "end": "2019-01-02"}},
        422,
        "malformed_request",
    ),
    (
        "a range of two kinds",
        {"metrics": ["line_count"], "time_range": CUT | {"preset": "today"}},
        422,
        "malformed_request",
    ),
    (
        "a range of no units",
        {"metrics": ["line_count"], "time_range": {"last": 0, "unit": "day"}},
        422,
        "malformed_request",
    ),
    ("no such preset", {"metrics": ["line_count"], "time_range": {"preset": "someday"}}, 422, "malformed_request"),
    ("an unknown key", {"metrics": ["line_count"], "sql": "SELECT 1"}, 422, "malformed_request"),
    ("an unknown key inside", {"metrics": ["line_count"], "where": [FEMALE | {"sql": "1"}]}, 422, "malformed_request"),
    ("a text for a list", {"metrics": "line_count"}, 422, "malformed_request"),
    ("an empty name", {"metrics": [""]}, 422, "malformed_request"),
    ("a name that is too long", {"metrics": ["a" * 301]}, 422, "malformed_request"),
)
