"""What a statement will cost, before it runs: the rows that it reads, joins, groups and sorts, as its plan estimates.

The engine's own estimates are good where rows are read and filtered, and useless above that: DuckDB 2.0 takes groups
for half of their rows, so the joins of grouped rows, which MetricFlow writes for every second metric, multiply to
10^15. So the plan is walked from its leaves with a few rules that hold for what MetricFlow writes.

References
----------
Selinger et al., Access Path Selection in a Relational Database Management System, SIGMOD 1979, table 1: a comparison
of two columns by order keeps a third of the pairs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Node: TypeAlias = Mapping[str, Any]

_ONE_IN = 3  # pairs that a comparison by order keeps
_EQUAL = (" = ", " IS NOT DISTINCT FROM ")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    """Rows that leave an operator, whether they are groups, and the work done up to there."""

    rows: int
    is_grouped: bool
    work: int


class _Walk:
    """One plan, from its leaves to its root; remembers its common table expressions."""

    def __init__(self, table_rows: Mapping[str, int]) -> None:
        self._table_rows = table_rows
        self._named: dict[str, _Flow] = {}

    def flow(self, node: Node) -> _Flow:
        name, children = node["name"], node["children"]
        if name == "CTE":
            self._named[node["extra_info"]["Table Index"]] = definition = self.flow(children[0])
            return _after(self.flow(children[1]), work=definition.work)
        if (named := self._named.get(node["extra_info"].get("CTE Index", ""))) is not None:
            return _Flow(rows=named.rows, is_grouped=named.is_grouped, work=named.rows)
        inputs = [self.flow(child) for child in children]
        if not inputs:
            return self._read(node)
        if name == "PROJECTION":
            return inputs[0]
        if "JOIN" in name or name == "CROSS_PRODUCT":
            return _joined(node, inputs)
        return _passed(node, inputs)

    def _read(self, node: Node) -> _Flow:
        rows = _estimate(node, otherwise=0 if node["name"] == "EMPTY_RESULT" else 1)
        table = ".".join(node["extra_info"].get("Table", "").replace('"', "").split(".")[-2:])
        # A filter spares later operators, but not the reading.
        return _Flow(rows=rows, is_grouped=False, work=max(rows, self._table_rows.get(table, 0)))


def estimated_cost(plan: str, table_rows: Mapping[str, int]) -> int:
    """Rows read, joined, grouped and sorted by a plan.

    Parameters
    ----------
    plan
        What DuckDB answers to `EXPLAIN (FORMAT json)`.
    table_rows
        The rows of each table, as `schema.table`.
    """
    return sum(_Walk(table_rows).flow(root).work for root in json.loads(plan))


def _joined(node: Node, inputs: list[_Flow]) -> _Flow:
    sizes = [flow.rows for flow in inputs]
    pairs = sizes[0] * sizes[-1]
    is_grouped = any(flow.is_grouped for flow in inputs)
    conditions = _conditions(node)
    if not any(sign in condition for condition in conditions for sign in _EQUAL):
        rows = pairs // _ONE_IN ** len(conditions)
    elif is_grouped:  # groups meet groups or rows by their key
        rows = max(sizes)
    else:
        rows = min(_estimate(node, otherwise=pairs), pairs)
    return _Flow(rows=rows, is_grouped=is_grouped, work=sum(flow.work for flow in inputs) + sum(sizes) + rows)


def _passed(node: Node, inputs: list[_Flow]) -> _Flow:
    """An operator that sees each of its rows once: it groups, filters, sorts, numbers or puts together."""
    seen = sum(flow.rows for flow in inputs)
    groups = "AGGREGATE" in node["name"] or "GROUP_BY" in node["name"]
    return _Flow(
        rows=min(_estimate(node, otherwise=seen), seen),
        is_grouped=groups or any(flow.is_grouped for flow in inputs),
        work=sum(flow.work for flow in inputs) + seen,
    )


def _after(flow: _Flow, *, work: int) -> _Flow:
    return _Flow(rows=flow.rows, is_grouped=flow.is_grouped, work=flow.work + work)


def _estimate(node: Node, *, otherwise: int) -> int:
    return int(node["extra_info"].get("Estimated Cardinality", otherwise))


def _conditions(node: Node) -> list[str]:
    found = node["extra_info"].get("Conditions", [])
    return [found] if isinstance(found, str) else list(found)
