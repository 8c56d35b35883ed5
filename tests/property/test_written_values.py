"""A question that is written down and read again is the same question, whatever it holds; anything else is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, is_dataclass
from datetime import UTC, date
from decimal import Decimal
from typing import Any, get_type_hints

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.answer import Answer
from api.deferred_query import answer_told, told
from api.documents import document, read, restored, written
from api.filters import AllOf, AnyOf, Comparison, Not, Operator
from api.periods import Preset
from api.policy import Principal
from api.query import MetricQuery
from tests.conftest import REPOSITORY

often = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Whatever has a float has a number: a timing, a value of a filter.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))

finite_decimals = st.decimals(allow_nan=False, allow_infinity=False)
values = st.one_of(
    st.text(st.characters()),  # lone surrogates and NUL among them
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    finite_decimals,
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC)).map(lambda at: at.replace(fold=0)),
)
leaves = st.builds(
    Comparison, field=st.text(), operator=st.sampled_from(Operator), values=st.lists(values, max_size=4).map(tuple)
)
filters = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, max_size=3).map(lambda found: AllOf(tuple(found))),
        st.lists(parts, max_size=3).map(lambda found: AnyOf(tuple(found))),
        parts.map(Not),
    ),
    max_leaves=8,
)


def every_field(kind: Any) -> st.SearchStrategy[Any]:
    """Values of the dataclass with each field drawn by its annotation, so that a new field is tested unasked."""
    hints = get_type_hints(kind)
    return st.builds(
        kind,
        **{
            item.name: (filters | st.none()) if "Filter" in str(item.type) else drawn(hints[item.name])
            for item in fields(kind)
        },
    )


def drawn(hint: Any) -> st.SearchStrategy[Any]:
    return every_field(hint) if is_dataclass(hint) else st.from_type(hint)


questions = every_field(MetricQuery)
answer_parts = st.fixed_dictionaries(
    {name: drawn(hint) for name, hint in get_type_hints(Answer).items() if name != "table"}
)


def same(one: Any, other: Any) -> bool:
    """Equal to the last type: 1 is neither True nor Decimal(1), and 1.0 is not 1.00."""
    return bool(one == other) and repr(one) == repr(other)


@often
@given(questions)
def test_a_question_is_the_same_after_it_was_written_and_read(question: MetricQuery) -> None:
    assert same(read(written(question), MetricQuery), question)


@often
@given(questions, questions)
def test_two_questions_are_written_alike_only_if_they_are_the_same(one: MetricQuery, other: MetricQuery) -> None:
    assert (written(one) == written(other)) == same(one, other)


@often
@given(questions)
def test_what_is_written_is_ascii_in_key_order(question: MetricQuery) -> None:
    text = written(question)

    assert text.isascii()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@given(st.dictionaries(st.text(), st.lists(st.text()).map(tuple)))
def test_a_principal_is_the_same_after_it_was_written_and_read(claims: dict[str, tuple[str, ...]]) -> None:
    principal = Principal(principal_id="k1", name="Ada", role="regional", claims=claims)

    assert read(written(principal), Principal) == principal


@often
@given(answer_parts)
def test_whatever_an_answer_says_besides_its_rows_is_the_same_after_it_was_told(parts: dict[str, Any]) -> None:
    answer = Answer(table=pa.table({}), **parts)

    assert answer_told(told(answer)) == answer


@pytest.mark.parametrize("text", ["{}", "nonsense", '{"colour": "red"}', '{"limit": "three"}'])
def test_what_tells_no_answer_is_none(text: str) -> None:
    assert answer_told(text) is None


def test_a_question_is_written_alike_in_another_process() -> None:
    leaf = Comparison(field="a", operator=Operator.IN, values=(Decimal("1.50"), date(2019, 1, 31), True, "é\ud800"))
    question = MetricQuery(metrics=("b", "a"), where=AllOf((leaf, Not(leaf))), time_range=Preset.TODAY, limit=3)
    script = f"""
from datetime import date
from decimal import Decimal
from api.deferred_query import answer_told, told
from api.documents import read, written
from api.filters import *
from api.query import *
print(written(read({written(question)!r}, MetricQuery)))
"""
    for seed in ("0", "1"):
        other = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert other.stdout.strip() == written(question)


def test_what_has_its_default_is_left_out_so_that_an_older_document_can_be_read() -> None:
    assert document(MetricQuery(metrics=("a",))) == {"MetricQuery": {"metrics": ["a"]}}


LEAF = {"field": "a", "operator": {"Operator": "eq"}, "values": [1]}


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        "MetricQuery",
        {"metrics": ["a"]},
        {"Comparison": LEAF},
        {"MetricQuery": None},
        {"MetricQuery": {"metrics": "a"}},
        {"MetricQuery": {"metrics": [1]}},
        {"MetricQuery": {"metrics": [None]}},
        {"MetricQuery": {"metrics": {"tuple": ["a"]}}},
        {"MetricQuery": {"limit": "3"}},
        {"MetricQuery": {"limit": 3.0}},
        {"MetricQuery": {"limit": True}},
        {"MetricQuery": {"limit": None}},  # the default, which is left out
        {"MetricQuery": {"no_such_field": 1}},
        {"MetricQuery": {}, "Comparison": LEAF},
        {"MetricQuery": {"where": LEAF}},
        {"MetricQuery": {"where": {"MetricQuery": {}}}},
        {"MetricQuery": {"where": {"Operator": "eq"}}},
        {"MetricQuery": {"where": {"object": {}}}},
        {"MetricQuery": {"where": {"Comparison": {"field": "a"}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"operator": "eq"}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"operator": {"Operator": "like"}}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"values": [None]}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"values": [{"Decimal": "one"}]}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"values": [{"Decimal": 1}]}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"values": [{"date": "20190131"}]}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"values": [{"date": 5}]}}}},
        {"MetricQuery": {"where": {"Comparison": LEAF | {"values": [{"str": "a"}]}}}},
        {"MetricQuery": {"time_range": "today"}},
        {"MetricQuery": {"time_range": {"Unit": "day"}}},
        {"MetricQuery": {"time_range": {"DateRange": {"start": {"date": "2019-01-01"}}}}},
    ],
)
def test_what_tells_no_question_is_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="MetricQuery"):
        restored(found, MetricQuery)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", [1], MetricQuery])
def test_what_could_not_be_read_again_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        document(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_in_json_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        written(number)
