"""A reply out of the metrics: the sentence, the chart, the table, what it rests on and how to ask for it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import streamlit as st

from clients.chatbot.analyst import Analyst
from clients.chatbot.columns import is_group, metrics_of
from clients.chatbot.conversation import DataReply
from clients.chatbot.pictures import Kind, kind_of, vega
from clients.chatbot.requests import NotInGraphql, graphql_of, rest_of
from clients.chatbot.saying import said
from clients.chatbot.views.places import TO_EXPLORE
from clients.chatbot.views.plain import label, say
from clients.figures import RATIO, places, shown
from clients.planner import Mode
from clients.sdk import Answer, ApiError, Cell, Column

_TABLE_ROWS = 1_000
_SHOWN_ROWS, _ROW_PX = 6, 35  # of a table; with more, the sentence and the chart scroll out of sight on a phone


def show_answer(reply: DataReply, analyst: Analyst, *, url: str, key: str) -> None:
    """Show an answered reply; `key` tells its widgets from those of other replies."""
    if reply.answer is None or reply.request is None:
        return
    say(said(reply.text, reply.answer))
    if reply.planned_by is Mode.FALLBACK:
        st.caption("The language model did not answer; this was understood without it.")
    _picture(reply.text, reply.answer)
    if len(reply.answer.columns) > 1:
        _table(reply.answer, key)
    meta = reply.answer.meta
    st.caption(label(f"Data up to {meta['as_of']} · version {meta['publication']}"))
    _definitions(reply.request["metrics"], analyst)
    _tools(reply.request, analyst, url=url, key=key)


def _picture(text: str, answer: Answer) -> None:
    if kind_of(answer) is Kind.NUMBER:
        _numbers(answer)
    elif (spec := vega(answer)) is not None:
        st.vega_lite_chart(spec, width="stretch", alt=text)


def _numbers(answer: Answer) -> None:
    (row,) = answer.rows
    asked = metrics_of(answer)
    for place, column in zip(st.columns(len(asked)), asked, strict=True):
        ratio = row.get(f"{column['name']}__change_ratio")
        delta = f"{ratio * 100:+.1f} %" if isinstance(ratio, Decimal | int) else None
        place.metric(label(column["label"]), shown(row[column["name"]], column["unit"]), delta)


def _table(answer: Answer, key: str) -> None:
    rows = answer.rows[:_TABLE_ROWS]
    table = {column["name"]: [_cell(row[column["name"]], column["unit"]) for row in rows] for column in answer.columns}
    st.dataframe(
        table,
        hide_index=True,
        height="auto" if len(rows) <= _SHOWN_ROWS else (_SHOWN_ROWS + 1) * _ROW_PX + _ROW_PX // 2,
        key=f"{key}-table",
        column_config={column["name"]: _heading(column) for column in answer.columns},
    )
    if len(answer.rows) > len(rows):
        st.caption(f"The first {_TABLE_ROWS:,} of {len(answer.rows):,} rows; the CSV has them all.")
    elif answer.meta["truncated"]:
        st.caption("There are more rows than one answer holds; narrow the question down.")


def _heading(column: Column) -> Any:  # noqa: ANN401 - Streamlit's columns have no common type
    unit = "%" if column["unit"] == RATIO else column["unit"]
    title = f"{column['label']} ({unit})" if unit else column["label"]
    if not is_group(column) and column["type"] in ("decimal", "integer", "float"):
        is_ratio = column["unit"] == RATIO
        return st.column_config.NumberColumn(title, format="percent" if is_ratio else "localized")
    return st.column_config.Column(title)


def _cell(value: Cell, unit: str | None) -> object:
    """As the browser draws it, rounded as in the sentence; exact decimals are in the CSV."""
    return round(float(value), places(value, unit)) if isinstance(value, Decimal) else value


def _definitions(metrics: Sequence[str], analyst: Analyst) -> None:
    with st.expander("What is counted", icon=":material/menu_book:"):
        for metric in (analyst.snapshot.metrics[name] for name in metrics if name in analyst.snapshot.metrics):
            say(f"{metric['label']} ({metric['unit'] or 'no unit'}): {metric['description']}")


def _tools(request: Mapping[str, Any], analyst: Analyst, *, url: str, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "CSV",
            data=lambda: analyst.client.query_bytes(request, media_type="text/csv"),
            file_name="answer.csv",
            mime="text/csv",
            icon=":material/download:",
            key=f"{key}-csv",
            on_click="ignore",
        )
        edit = {TO_EXPLORE: request}
        st.button(
            "Edit in Explore",
            icon=":material/tune:",
            key=f"{key}-explore",
            on_click=lambda: st.session_state.update(edit),
        )
        is_open = st.toggle("Show request", key=f"{key}-request")
    if is_open:
        show_request(request, analyst, url=url)


def show_request(request: Mapping[str, Any], analyst: Analyst, *, url: str) -> None:
    """Show the request as REST, as GraphQL, and as SQL where the caller may see it."""
    rest, graphql, sql = st.tabs(["REST", "GraphQL", "SQL"])
    rest.code(rest_of(request, url), language="bash")
    try:
        graphql.code(graphql_of(request), language="graphql")
    except NotInGraphql as error:
        graphql.caption(label(str(error)))
    try:
        compiled = analyst.client.compile(request)
    except ApiError as error:
        sql.caption(label(f"{error.message} {error.hint}"))
    else:
        sql.code(compiled["sql"], language="sql")
        if compiled.get("parameters"):
            sql.json(compiled["parameters"], expanded=False)
