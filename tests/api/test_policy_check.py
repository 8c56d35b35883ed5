"""A policy is held against what is published: a slip is seen by its keeper, and never opens anything."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from api.cli import policy as policy_command
from api.errors import InvalidQuery, WrongSetting
from api.policy import read_policy
from tests.api.principals import Join, listed, names, refusal, rows, serving
from tests.conftest import REPOSITORY, Published, service_settings

POLICY = """
version: 1
roles:
  admin: {metrics: ["*"], dimensions: ["*"], see_sql: true}
  sloppy:
    metrics: [total_revenu, line_count, "cupon*"]
    dimensions: [metric_time, "customers__*", total_revenue]
    hidden: [customer__gendre, marketing_spend]
    hashed: [custmer]
  misspelt:
    metrics: ["*"]
    dimensions: ["*"]
    see_sql: true
    rows: [{field: customer__loction, op: eq, values: [Chicago]}]
  mistyped:
    metrics: ["*"]
    dimensions: ["*"]
    rows:
      - {field: customer__location, op: eq, values: [Chicago]}
      - {field: customer__tenure_months, op: gte, values: [long]}
  wrong_grain:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__first_purchase_date__hour, op: eq, values: ["2019-01-01"]}]
  numeric_claim:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__tenure_months, op: in, claim: months}]
  by_day:
    metrics: ["*"]
    dimensions: ["*"]
    rows: [{field: customer__first_purchase_date, op: gte, claim: since}]
"""

PLACES = {
    "roles.sloppy.metrics.0": ("'total_revenu'", "total_revenue", False),
    "roles.sloppy.metrics.2": ("'cupon*'", "coupon", False),
    "roles.sloppy.dimensions.1": ("'customers__*'", "customer__", False),
    "roles.sloppy.dimensions.2": ("'total_revenue'", "", False),
    "roles.sloppy.hidden.0": ("'customer__gendre'", "customer__gender", False),
    "roles.sloppy.hashed.0": ("'custmer'", "customer", False),
    "roles.misspelt.rows.0": ("'customer__loction'", "customer__location", True),
    "roles.mistyped.rows.1": ("customer__tenure_months takes values of type integer", "", True),
    "roles.wrong_grain.rows.0": ("has no grain 'hour'", "", True),
    "roles.numeric_claim.rows.0": ("the values of a claim are texts", "", True),
}
CLOSED = ("misspelt", "mistyped", "wrong_grain", "numeric_claim")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "policy.yml"
    written.write_text(POLICY)
    return written


def check(published: Published, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    # A copy, as the engine opens a file once in a process, with one configuration; the command has its own process.
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(published.settings.publication_dir, Path(folder) / "publications")
        monkeypatch.setenv("INSIGHT_PUBLICATION_DIR", str(copy))
        return CliRunner().invoke(policy_command, ["check", *arguments])


# What its keeper is told


def test_the_check_names_every_problem_with_its_place_and_fails(
    synthetic: Published, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = check(synthetic, monkeypatch, "--file", str(file))

    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert [line.partition(":")[0] for line in lines[:-1]] == list(PLACES)
    for line, (detail, near, is_closing) in zip(lines, PLACES.values(), strict=False):
        assert detail in line
        assert near in line
        assert ("the role is refused" in line) == is_closing
    assert lines[-1] == f"{file}: {len(PLACES)} problems"


def test_a_script_reads_the_problems_as_json(synthetic: Published, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHT_POLICY_FILE", str(file))
    result = check(synthetic, monkeypatch, "--json")

    assert result.exit_code == 1
    found = {item["place"]: item for item in json.loads(result.stdout)}
    assert {place: item["is_closing"] for place, item in found.items()} == {
        place: is_closing for place, (_, _, is_closing) in PLACES.items()
    }
    assert found["roles.misspelt.rows.0"]["nearest"][0] == "customer__location"


def test_a_policy_that_fits_has_no_problem(
    synthetic: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs" / "policy.md").read_text(encoding="utf-8")
    good = tmp_path / "policy.yml"
    good.write_text(page.split("```yaml\n")[1].split("```")[0])

    result = check(synthetic, monkeypatch, "--file", str(good))

    assert (result.exit_code, result.stdout) == (0, f"{good}: no problems\n")


def test_there_is_something_to_check_or_a_line_that_says_what_is_missing(
    synthetic: Published, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, said in (
        ((), "no policy file"),
        (("--file", str(tmp_path / "nowhere.yml")), "nowhere.yml"),
    ):
        failed = check(synthetic, monkeypatch, *arguments)
        assert isinstance(failed.exception, WrongSetting | InvalidQuery)
        assert said in str(failed.exception)
    monkeypatch.setenv("INSIGHT_PUBLICATION_DIR", str(tmp_path / "nothing"))
    unpublished = CliRunner().invoke(policy_command, ["check", "--file", str(file)])
    assert "Nothing is published" in str(unpublished.exception)


def test_the_command_ends_with_1_as_a_process_does(synthetic: Published, file: Path) -> None:
    code = "from api.cli import policy; policy()"
    settings = service_settings(synthetic)
    ended = subprocess.run(
        [sys.executable, "-c", code, "check", "--file", str(file)],
        env={"INSIGHT_PUBLICATION_DIR": str(settings.publication_dir), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1, ended.stderr
    assert "roles.sloppy.hidden.0" in ended.stdout


async def test_the_log_names_each_problem_once_for_a_policy_and_a_publication(
    synthetic: Published, file: Path, tmp_path: Path
) -> None:
    def told(logs: list[dict[str, object]]) -> list[object]:
        return [line["place"] for line in logs if line["event"] == "policy_problem"]

    with capture_logs() as logs:
        async with serving(synthetic, file, tmp_path / "state.db") as join:
            assert told(logs) == list(PLACES)  # before anybody asks
            admin = join("admin")
            for _ in range(3):
                await rows(admin, {"metrics": ["line_count"]})
            assert told(logs) == list(PLACES)

            fresh = tmp_path / "fresh.yml"
            fresh.write_text(POLICY.replace("customer__gendre", "customer__gender"))
            fresh.replace(file)
            await asyncio.sleep(1.2)
            for _ in range(3):
                await rows(admin, {"metrics": ["line_count"]})
    again = [place for place in PLACES if place != "roles.sloppy.hidden.0"]
    assert told(logs) == [*PLACES, *again]
    nearest = {line["place"]: line["nearest"] for line in logs if line["event"] == "policy_problem"}
    assert nearest["roles.misspelt.rows.0"][0] == "customer__location"


# What its principals are told


@pytest.mark.parametrize("role", CLOSED)
async def test_a_role_whose_row_filter_does_not_fit_is_refused_everywhere_and_told_no_name(
    join: Join, role: str
) -> None:
    closed = join(role, months=("12",))
    query = {"metrics": ["line_count"], "group_by": ["customer__location"]}
    answers = [
        await closed.post("/v1/query", json=query),
        await closed.post("/v1/query", json={"metrics": ["marketing_spend"]}),
        await closed.post("/v1/query", json={"metrics": ["no_such_metric"]}),
        await closed.get("/v1/metrics"),
        await closed.get("/v1/metrics/line_count"),
        await closed.get("/v1/dimensions"),
        await closed.get("/v1/entities"),
        await closed.get("/v1/saved-queries"),
        await closed.get("/v1/saved-queries/revenue_by_month/results"),
        await closed.get("/v1/dimensions/customer__location/values"),
    ]
    if role == "misspelt":
        answers += [
            await closed.post("/v1/query/compile", json=query),
            await closed.get("/v1/lineage/line_count"),
        ]

    assert [refusal(answer) for answer in answers] == [(403, "broken_policy")] * len(answers)
    for answer in answers:
        told = answer.json()["detail"] + answer.json()["hint"]
        assert "insight policy check" in told
        assert not any(name in told for name in ("customer", "loction", "Chicago", "tenure", "long", "months"))


async def test_the_other_roles_of_the_file_are_not_concerned(join: Join) -> None:
    admin, sloppy = join("admin"), join("sloppy")

    assert len(await listed(admin, "/v1/metrics")) > 15
    assert await names(sloppy, "/v1/metrics") == {"line_count"}
    assert await rows(sloppy, {"metrics": ["line_count"]}) == await rows(admin, {"metrics": ["line_count"]})


async def test_a_claim_that_does_not_fit_its_field_opens_nothing(join: Join) -> None:
    query = {"metrics": ["line_count"]}
    some = await rows(join("by_day", since=("2019-06-01",)), query)
    wrong = await join("by_day", since=("last summer",)).post("/v1/query", json=query)

    assert 0 < some[0]["line_count"] < (await rows(join("admin"), query))[0]["line_count"]
    assert refusal(wrong) == (403, "broken_policy")
    assert "last summer" not in wrong.text


# The file


TWICE = {
    "a role": ("version: 1\nroles:\n  admin: {}\n  viewer: {}\n  admin: {metrics: [a]}\n", "line 5", "'admin'"),
    "a field": ('version: 1\nroles:\n  admin:\n    hidden: [a]\n    hidden: ["*"]\n', "line 5", "'hidden'"),
    "the roles": ("version: 1\nroles: {admin: {}}\nroles: {viewer: {}}\n", "line 3", "'roles'"),
    "on one line": ("version: 1\nroles: {admin: {see_sql: false, see_sql: true}}\n", "line 2", "'see_sql'"),
    "part of a row filter": (
        "version: 1\nroles:\n  a:\n    rows:\n    - field: b\n      op: eq\n      op: ne\n      values: [c]\n",
        "line 7",
        "'op'",
    ),
}


@pytest.mark.parametrize(("text", "line", "key"), TWICE.values(), ids=[name.replace(" ", "_") for name in TWICE])
def test_what_stands_twice_in_the_file_is_refused_with_its_line(tmp_path: Path, text: str, line: str, key: str) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(text)

    with pytest.raises(InvalidQuery) as caught:
        read_policy(file)

    assert caught.value.code == "invalid_policy"
    assert line in caught.value.detail
    assert key in caught.value.detail


def test_what_is_merged_into_a_mapping_may_be_overridden(tmp_path: Path) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(
        "version: 1\nroles:\n  all: &all {metrics: ['*'], dimensions: ['*']}\n  few: {<<: *all, metrics: [a]}"
    )

    assert read_policy(file).roles["few"].metrics == ("a",)
    assert read_policy(file).roles["few"].dimensions == ("*",)
