"""A request as other tools would send it, to be copied: REST and GraphQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

_SIGNS = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_TIMED = re.compile(r"(?P<name>\w+)__(?P<grain>day|week|month|quarter|year)")
_PART = re.compile(r"(?P<name>\w+)__extract_(?P<part>year|quarter|month|day|dow|doy)")


class NotInGraphql(Exception):
    """dbt's schema has no words for a part of the request; REST does."""


def rest_of(request: Mapping[str, Any], url: str) -> str:
    """A command line that asks for it."""
    body = json.dumps(request, indent=2, ensure_ascii=False, default=float).replace("'", "'\\''")
    return (
        f"curl -s {url}/v1/query \\\n"
        '  -H "Authorization: Bearer $INSIGHT_API_KEY" -H "Content-Type: application/json" \\\n'
        f"  -d '{body}'"
    )


def graphql_of(request: Mapping[str, Any]) -> str:
    """A document that asks for it.

    Raises
    ------
    NotInGraphql
        It compares, or has thresholds or filters that dbt's schema cannot say.
    """
    for key in ("compare_to", "having", "offset"):
        if request.get(key):
            raise NotInGraphql(f"GraphQL, which has dbt's schema, has no {key}; ask over REST.")
    arguments = [f"metrics: [{', '.join(f'{{name: {_quoted(name)}}}' for name in request['metrics'])}]"]
    if groups := request.get("group_by"):
        arguments.append(f"groupBy: [{', '.join(_group(name) for name in groups)}]")
    if filters := list(_filters(request)):
        arguments.append(f"where: [{', '.join(f'{{sql: {_quoted(text)}}}' for text in filters)}]")
    if orders := request.get("order_by"):
        arguments.append(f"orderBy: [{', '.join(_order(order, request['metrics']) for order in orders)}]")
    if limit := request.get("limit"):
        arguments.append(f"limit: {limit}")
    lines = "\n".join(f"    {argument}" for argument in arguments)
    return f"mutation {{\n  createSynchronousQuery(\n{lines}\n  ) {{ columns {{ name label unit }} rows }}\n}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _group(name: str) -> str:
    if found := _PART.fullmatch(name):
        return f"{{name: {_quoted(found['name'])}, datePart: {found['part'].upper()}}}"
    if found := _TIMED.fullmatch(name):
        return f"{{name: {_quoted(found['name'])}, timeGranularity: {_quoted(found['grain'])}}}"
    return f"{{name: {_quoted(name)}}}"


def _order(order: Mapping[str, Any], metrics: Sequence[str]) -> str:
    field, direction = order["field"], "true" if order.get("descending") else "false"
    which = f"metric: {{name: {_quoted(field)}}}" if field in metrics else f"groupBy: {_group(field)}"
    return f"{{{which}, descending: {direction}}}"


def _filters(request: Mapping[str, Any]) -> Iterator[str]:
    for condition in request.get("where", ()):
        yield _condition(condition)
    if days := request.get("time_range"):
        if "start" not in days:
            raise NotInGraphql("GraphQL, which has dbt's schema, has no relative days; ask over REST.")
        day = "{{ TimeDimension('metric_time', 'day') }}"
        yield f"{day} >= '{days['start']}'"
        yield f"{day} <= '{days['end']}'"


def _condition(condition: Mapping[str, Any]) -> str:
    for key, word in (("any_of", " OR "), ("all_of", " AND ")):
        if key in condition:
            return f"({word.join(_condition(part) for part in condition[key])})"
    if "not" in condition:
        return f"NOT ({_condition(condition['not'])})"
    field, values = _field(condition["field"]), [_literal(value) for value in condition.get("values", ())]
    match condition["op"]:
        case "in" | "not_in" as operator:
            return f"{field} {'NOT ' if operator == 'not_in' else ''}IN ({', '.join(values)})"
        case "between":
            return f"{field} BETWEEN {values[0]} AND {values[1]}"
        case "is_null" | "is_not_null" as operator:
            return f"{field} IS {'NOT ' if operator == 'is_not_null' else ''}NULL"
        case operator if operator in _SIGNS:
            return f"{field} {_SIGNS[operator]} {values[0]}"
        case operator:
            raise NotInGraphql(f"This filter ({operator}) is said more safely over REST.")


def _field(name: str) -> str:
    if _PART.fullmatch(name):
        raise NotInGraphql("This filter, on a part of a date, is said more safely over REST.")
    if found := _TIMED.fullmatch(name):
        return f"{{{{ TimeDimension('{found['name']}', '{found['grain']}') }}}}"
    if "__" not in name:
        raise NotInGraphql("This filter is said more safely over REST.")
    return f"{{{{ Dimension('{name}') }}}}"


def _literal(value: object) -> str:
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | float() | Decimal():
            return str(value)
        case _:
            return "'" + str(value).replace("'", "''") + "'"
