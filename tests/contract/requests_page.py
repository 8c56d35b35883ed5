"""`docs/requests.md`: real requests and their answers, asked of the service over synthetic data.

Written by `make examples`; a test asks again and compares.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.conftest import REPOSITORY
from tests.contract.provoked import Stage
from tests.contract.served import JSON, PROBLEM
from tests.contract.settled import settled

PAGE = REPOSITORY / "docs" / "requests.md"

_INTRODUCTION = """\
# Five requests and their answers

Asked of a running service over synthetic data (`insight generate --scale 0.2 --seed 7`), not written by hand:
`make examples` asks anew, and a test compares. Ids, times and versions are replaced by ones that stay. `$KEY` is an API
key (`insight keys create NAME`); `make demo` serves the same shop at five times the size, so its numbers are larger.

Everything that can be asked is in [`openapi.yaml`](../openapi.yaml), and at `/docs` of the running service.
"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request of the page, and what is said of it."""

    title: str
    before: str
    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: str = ""


REQUESTS = (
    Request(
        title="Metrics by month, with a filter",
        before="Two metrics of the first quarter, in two product categories. A time carries its grain: "
        "`metric_time__month`. The range includes both days; relative ones work too, as "
        '`{"last": 3, "unit": "month"}` or `{"preset": "this_year"}`, counted from the as-of date of the data.',
        path="/v1/query",
        body={
            "metrics": ["total_revenue", "average_order_value"],
            "group_by": ["metric_time__month"],
            "where": [{"field": "product__category", "op": "in", "values": ["Apparel", "Nest-USA"]}],
            "time_range": {"start": "2019-01-01", "end": "2019-03-31"},
        },
        after="Decimals are JSON numbers with all their digits. `meta` says which days were meant, which "
        "version of the data answered, whether the answer is complete (`truncated`), and where the time went.",
    ),
    Request(
        title="The top categories, by a condition on the metric",
        before="`where` filters rows before they are added up, `having` filters the sums.",
        path="/v1/query",
        body={
            "metrics": ["total_revenue", "units_sold"],
            "group_by": ["product__category"],
            "having": [{"field": "total_revenue", "op": "gt", "values": [10000]}],
            "order_by": [{"field": "total_revenue", "descending": True}],
            "limit": 3,
        },
        after='Three were asked for and more would follow, so `truncated` is true: ask again with `"offset": 3`.',
    ),
    Request(
        title="The values of a dimension",
        before="For a drop-down: those that have rows of the metric and contain a text.",
        path="/v1/dimensions/customer__location/values?metrics=total_revenue&search=C",
    ),
    Request(
        title="A refusal",
        before="A misspelt name. Every error has this form, with a `code` for programs and a `hint` for people.",
        path="/v1/query",
        body={"metrics": ["total_revenu"], "group_by": ["metric_time__month"]},
        after="The status is 404, as of every unknown name; a question that is well formed and has no answer is a 422.",
    ),
    Request(
        title="A table as CSV",
        before="`Accept` chooses the format: `text/csv`, `application/vnd.apache.arrow.stream`, "
        "`application/vnd.apache.parquet`, or JSON.",
        path="/v1/query",
        body={
            "metrics": ["transaction_count", "total_revenue"],
            "group_by": ["metric_time__quarter", "customer__gender"],
        },
        headers={"Accept": "text/csv"},
        after="Loads into a spreadsheet or `pandas.read_csv` as it is; a null is an empty cell.",
    ),
)


async def page(stage: Stage) -> str:
    """The text of the page, as the service answers now."""
    sections = [_section(number, each, await _asked(stage, each)) for number, each in enumerate(REQUESTS, start=1)]
    return "\n".join((_INTRODUCTION, *sections))


async def _asked(stage: Stage, request: Request) -> httpx.Response:
    if request.body is None:
        return await stage.admin.get(request.path, headers=request.headers)
    return await stage.admin.post(request.path, json=request.body, headers=request.headers)


def _section(number: int, request: Request, response: httpx.Response) -> str:
    kind = response.headers["content-type"].partition(";")[0]
    if kind in (JSON, PROBLEM):
        language, shown = "json", _lines(settled(json.loads(response.content)))
    else:
        language, shown = "csv", response.text.replace("\r\n", "\n").rstrip()
    parts = [f"## {number}. {request.title}", _wrapped(request.before), _fenced("sh", _curl(request))]
    parts += [_fenced(language, shown), *([_wrapped(request.after)] if request.after else [])]
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, width=120, break_long_words=False, break_on_hyphens=False)


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _curl(request: Request) -> str:
    """The request as one would paste it."""
    lines = [f"curl -s 'http://127.0.0.1:8000{request.path}'", '-H "Authorization: Bearer $KEY"']
    lines += [f"-H '{name}: {value}'" for name, value in request.headers.items()]
    if request.body is not None:
        lines += ["-H 'Content-Type: application/json'", f"-d '{_lines(request.body, margin='      ').lstrip()}'"]
    return " \\\n  ".join(lines)


def _lines(document: dict[str, Any], margin: str = "") -> str:
    """The document with a line for each of its keys, and for each item of a list of objects."""
    shown = []
    for key, value in document.items():
        if isinstance(value, list) and len(value) > 1 and isinstance(value[0], dict):
            items = (",\n" + margin + " " * 2).join(json.dumps(item, ensure_ascii=False) for item in value)
            text = f"[\n{margin}  {items}\n{margin} ]"
        elif isinstance(value, dict) and len(json.dumps(value)) > 110:
            text = _lines(value, margin + " ")
        else:
            text = json.dumps(value, ensure_ascii=False)
        shown.append(f"{json.dumps(key)}: {text}")
    return "{" + (",\n" + margin + " ").join(shown) + "}"
