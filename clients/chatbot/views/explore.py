"""The page on which a request is put together by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import streamlit as st

from clients.chatbot.conversation import Outcome
from clients.chatbot.views.answers import show_answer
from clients.chatbot.views.places import TO_EXPLORE, current_desk
from clients.chatbot.views.plain import label
from clients.planner import Snapshot

_BASE = "explore_base"  # the request that the fields begin with
_TURN = "explore_turn"  # counts them: other fields for each
_EQUAL = ("eq", "in")


def page() -> None:
    """Show the fields of a request, and its answer."""
    desk = current_desk()
    snapshot = desk.analyst.snapshot
    if (given := st.session_state.pop(TO_EXPLORE, None)) is not None:
        st.session_state[_BASE] = given
        st.session_state[_TURN] = st.session_state.get(_TURN, 0) + 1
    base: Mapping[str, Any] = st.session_state.get(_BASE, {})
    st.subheader("Explore")
    request = _request(snapshot, base, f"explore-{st.session_state.get(_TURN, 0)}")
    if not request["metrics"]:
        st.info("Pick a metric to begin.", icon=":material/touch_app:")
        return
    reply = desk.analyst.run({name: value for name, value in request.items() if value})
    if reply.outcome is Outcome.ANSWERED:
        show_answer(reply, desk.analyst, url=desk.url, key="explore")
    else:
        st.error(label(reply.text), icon=":material/error:")
        st.caption(label(reply.hint))


def _request(snapshot: Snapshot, base: Mapping[str, Any], key: str) -> dict[str, Any]:
    metrics = st.multiselect(
        "Metrics",
        list(snapshot.usual_metrics),
        default=[name for name in base.get("metrics", ()) if name in snapshot.metrics],
        format_func=lambda name: snapshot.metrics[name]["label"],
        max_selections=10,
        key=f"{key}-metrics",
    )
    groups = _groups(snapshot, metrics)
    group_by = st.multiselect(
        "By",
        list(groups),
        default=[name for name in base.get("group_by", ()) if name in groups],
        format_func=groups.__getitem__,
        max_selections=8,
        key=f"{key}-groups",
    )
    where, kept = _filters(snapshot, metrics, base.get("where", ()), key)
    if kept:
        st.caption(f"Filters kept as they were asked: {kept}.")
    columns = {*metrics, *group_by}
    return {
        "metrics": metrics,
        "group_by": group_by,
        "where": where,
        "having": [item for item in base.get("having", ()) if item.get("field") in columns],
        "order_by": [item for item in base.get("order_by", ()) if item["field"] in columns],
        "time_range": _days(snapshot, base.get("time_range"), key),
        "limit": base.get("limit") if group_by else None,
    }


def _groups(snapshot: Snapshot, metrics: Sequence[str]) -> dict[str, str]:
    """What all the metrics can be grouped by, as asked for, with a label each; grains of time first."""
    common = [
        dimension
        for name, dimension in snapshot.dimensions.items()
        if all(name in snapshot.metrics[metric]["dimensions"] for metric in metrics)
    ]
    times = {
        f"{dimension['name']}__{grain}": f"{dimension['label']} ({grain})"
        for dimension in sorted(common, key=lambda each: each["name"] != "metric_time")
        for grain in dimension["grains"]
    }
    return times | {dimension["name"]: dimension["label"] for dimension in common if not dimension["grains"]}


def _filters(
    snapshot: Snapshot, metrics: Sequence[str], base: Sequence[Mapping[str, Any]], key: str
) -> tuple[list[Mapping[str, Any]], int]:
    """The filters, and how many of them are of a kind that these fields cannot show."""
    simple = {
        item["field"]: item["values"]
        for item in base
        if item.get("op") in _EQUAL and item.get("field") in snapshot.values
    }
    others = [item for item in base if not (item.get("op") in _EQUAL and item.get("field") in snapshot.values)]
    fields = [name for name in snapshot.usual_dimensions(metrics) if snapshot.values.get(name)]
    chosen = st.multiselect(
        "Only where",
        fields,
        default=[name for name in simple if name in fields],
        format_func=lambda name: snapshot.dimensions[name]["label"],
        key=f"{key}-fields",
    )
    where: list[Mapping[str, Any]] = []
    for name in chosen:
        values = st.multiselect(
            label(f"{snapshot.dimensions[name]['label']} is one of"),
            list(snapshot.values[name]),
            default=[value for value in simple.get(name, ()) if value in snapshot.values[name]],
            format_func=str,
            key=f"{key}-values-{name}",
        )
        if values:
            where.append({"field": name, "op": "in", "values": values})
    return [*where, *others], len(others)


def _days(snapshot: Snapshot, base: Mapping[str, Any] | None, key: str) -> dict[str, str] | None:
    known = [date.fromisoformat(base[end]) for end in ("start", "end")] if base and "start" in base else []
    # Any: what is typed is none, one or two days.
    days: Any = st.date_input(
        "From and to (all days where empty)",
        known,  # type: ignore[arg-type] # an empty list is a range that is still open
        max_value=snapshot.as_of,
        format="YYYY-MM-DD",
        key=f"{key}-days",
    )
    match days:
        case (start, end):
            return {"start": start.isoformat(), "end": end.isoformat()}
        case _:
            return None
