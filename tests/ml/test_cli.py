"""`insight ml evaluate`, as it is typed: the model by today's customers, and every back-test beside its baseline."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from api.candidate import Access, serving
from ml.cli import commands
from tests.conftest import Published
from workers.segments import model_dir


@pytest.fixture(scope="module")
def access(synthetic: Published) -> Iterator[Access]:
    """The published synthetic data, served to this test alone."""
    with serving(synthetic.settings.publication_dir / synthetic.version) as made:
        yield made


def evaluated(access: Access, synthetic: Published, *arguments: str) -> str:
    result = CliRunner().invoke(
        commands,
        ["evaluate", "--models", str(model_dir(synthetic.settings)), *arguments],
        env={"INSIGHT_API_URL": access.url, "INSIGHT_API_KEY": access.key},
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_evaluate_prints_every_back_test_and_says_what_is_not_served(access: Access, synthetic: Published) -> None:
    told = evaluated(access, synthetic)
    published = json.loads((synthetic.settings.publication_dir / synthetic.version / "outlook.json").read_text())

    lines = {line[2:34].strip(): line for line in told.splitlines()}
    for kind in ("forecast", "anomalies"):
        for each in published["anomalies" if kind == "anomalies" else "forecasts"]:
            line = lines[f"{kind} of {each['metric']}"]
            assert f"{each['backtest']['error']:.4g}" in line
            assert f"{each['backtest']['baseline_error']:.4g}" in line
            assert ("NOT served" in line) != each["is_proven"]
    for about, part in (("churn within 90 days", "churn"), ("value of 90 days", "value")):
        assert f"{published['customers'][part]['backtest']['error']:.4g}" in lines[about]


def test_evaluate_tells_the_same_to_a_script(access: Access, synthetic: Published) -> None:
    told = json.loads(evaluated(access, synthetic, "--json"))
    published = json.loads((synthetic.settings.publication_dir / synthetic.version / "outlook.json").read_text())

    assert told["backtests"]["churn within 90 days"] == (
        published["customers"]["churn"]["backtest"] | {"is_proven": published["customers"]["churn"]["is_proven"]}
    )
    assert len(told["backtests"]) == 9
    assert told["quality"]["smallest_share"] > 0.01
