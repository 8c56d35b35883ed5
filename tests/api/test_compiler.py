"""SQL for both warehouses: one statement, values as placeholders of the driver's own kind."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from api.compiler import CompiledQuery, Compiler, Dialect
from api.filters import AllOf, Comparison, Operator
from api.opened import open_publication
from api.periods import DateRange
from api.query import MetricQuery, OrderBy, PageLimits, check
from api.warehouse import EngineLimits
from tests.conftest import Published

LIMITS = PageLimits(default_rows=100, max_rows=1_000)
QUESTIONS = {
    "a total": MetricQuery(metrics=("total_revenue",)),
    "a ratio by month and place": MetricQuery(
        metrics=("average_order_value",), group_by=("metric_time__month", "customer__location")
    ),
    "an offset": MetricQuery(metrics=("revenue_growth_mom",), group_by=("metric_time__month",)),
    "a conversion": MetricQuery(metrics=("coupon_conversion_rate",), group_by=("metric_time__month",)),
    "filters of all kinds": MetricQuery(
        metrics=("total_revenue",),
        group_by=("product__category",),
        where=AllOf(
            (
                Comparison(field="product__category", operator=Operator.CONTAINS, values=("50%_off",)),
                Comparison(field="customer__gender", operator=Operator.IN, values=("F", "it's")),
            )
        ),
        having=Comparison(field="total_revenue", operator=Operator.GT, values=(10,)),
        time_range=DateRange(start=date(2019, 1, 1), end=date(2019, 3, 31)),
        order_by=(OrderBy(field="total_revenue", is_descending=True),),
        limit=7,
        offset=3,
    ),
}


@pytest.fixture(scope="module")
def folder(synthetic: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, as the engine opens a file once in a process, with one configuration."""
    copy = tmp_path_factory.mktemp("compiler") / synthetic.version
    return Path(shutil.copytree(synthetic.settings.publication_dir / synthetic.version, copy))


async def compiled(folder: Path, dialect: Dialect, question: MetricQuery) -> CompiledQuery:
    """The question as that warehouse would get it, checked against what is published."""
    engine = EngineLimits(memory_mb=256, threads=1, connections=1, query_timeout=timedelta(seconds=10))
    with closing(open_publication(folder, engine)) as publication:
        checked = check(question, publication.catalog, as_of=publication.info.as_of, limits=LIMITS)
    return await Compiler((folder / "semantic_manifest.json").read_text(), dialect=dialect).compile(checked)


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
async def test_snowflake_gets_one_select_with_pyformat_placeholders(folder: Path, question: MetricQuery) -> None:
    answer = await compiled(folder, Dialect.SNOWFLAKE, question)

    # What its driver does with the text: `%` formatting, so every other percent sign has to be doubled.
    sql = answer.sql % {name: f":{name}" for name in answer.parameters}
    (statement,) = sqlglot.parse(sql, dialect="snowflake")
    assert isinstance(statement, exp.Select)
    assert {"limit", "offset"} <= answer.parameters.keys()
    assert "$" not in sql
    assert [name for name in answer.parameters if f"%({name})s" not in answer.sql] == []
    assert "50%" not in sql
    assert "it's" not in sql


async def test_the_two_warehouses_get_the_same_values(folder: Path) -> None:
    question = QUESTIONS["filters of all kinds"]
    snowflake = await compiled(folder, Dialect.SNOWFLAKE, question)
    duckdb = await compiled(folder, Dialect.DUCKDB, question)

    assert list(snowflake.parameters.values()) == list(duckdb.parameters.values())
    assert snowflake.columns == duckdb.columns
    assert snowflake.parameters["limit"] == 8  # one more than asked, which tells whether more follow
