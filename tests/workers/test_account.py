"""The Snowflake account as code: well formed, least privilege, run in order, run again without effect."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from sqlalchemy.schema import CreateTable
from sqlfluff.core import Linter
from typer.testing import CliRunner, Result

from tests.conftest import REPOSITORY
from tests.snowflake import SnowflakeEmulator
from workers.account import Statement, apply_account, connect_account, read_account
from workers.account_names import AccountNames, Edition
from workers.errors import AccountError, SettingError
from workers.raw_tables import EVENT_TABLES, RAW
from workers.upkeep_cli import snowflake as snowflake_commands

# What sqlfluff's dialect does not know, each as Snowflake's documentation has it.
UNKNOWN_TO_THE_PARSER = (
    r"grant apply on tag [\w.]+ to role \w+",
    r"alter tag [\w.]+ set\s+masking policy [\w.]+, masking policy [\w.]+ force",
)
GRANT = re.compile(r"grant (?P<what>.+) on (?P<where>.+) to role (?P<role>\w+)")
ROLE_GRANT = re.compile(r"grant role (?P<role>\w+) to role (?P<to>\w+)")


def enterprise() -> tuple[Statement, ...]:
    return read_account(AccountNames(), edition=Edition.ENTERPRISE)


def grants(statements: Iterable[Statement]) -> dict[str, set[tuple[str, str]]]:
    """Of each role, the privileges and what each is on. A grant that is written in another way fails here."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for statement in statements:
        if not statement.text.startswith("grant ") or ROLE_GRANT.fullmatch(statement.text):
            continue
        grant = GRANT.fullmatch(statement.text)
        assert grant, statement
        found[grant["role"]] |= {(privilege, grant["where"]) for privilege in grant["what"].split(", ")}
    return found


def complaints(statements: Iterable[Statement]) -> list[str]:
    """What in the grants is more than the role is for."""
    return [
        f"{role}: {privilege} on {where}"
        for role, given in grants(statements).items()
        for privilege, where in sorted(given)
        if not any(
            privilege in privileges.split("|") and re.fullmatch(places, where)
            for privileges, places in ALLOWED.get(role, ())
        )
    ]


# A version is a clone of MARTS: rights on its tables come from there, and it is entered as it is made after the grant.
# Whoever may not enter MARTS itself, nor any other schema that was there before, reads nothing but versions.
READER_OF_VERSIONS = (
    ("usage", r"future schemas in database MARKETING_INSIGHT"),
    ("usage", r"database MARKETING_INSIGHT"),
    ("select", r"(all|future) tables in schema MARKETING_INSIGHT\.MARTS"),
)
IN_RAW = (("usage", r"database MARKETING_INSIGHT"), ("usage", r"schema MARKETING_INSIGHT\.RAW"))
RAW_TABLES = r"(all|future) tables in schema MARKETING_INSIGHT\.RAW"
# What each role may have at most: privileges, and places.
ALLOWED: dict[str, tuple[tuple[str, str], ...]] = {
    "INSIGHT_SERVER": (*READER_OF_VERSIONS, ("usage", r"warehouse INSIGHT_SERVING")),
    "MARKETING_ANALYST": (*READER_OF_VERSIONS, ("usage", r"warehouse INSIGHT_ANALYSIS")),
    "INSIGHT_LOADER": (
        *IN_RAW,
        ("usage", r"warehouse INSIGHT_LOADING"),
        ("create table|create stage|create pipe", r"schema MARKETING_INSIGHT\.RAW"),
        ("operate|monitor", r"(all|future) pipes in schema MARKETING_INSIGHT\.RAW"),
        ("read|write", r"stage MARKETING_INSIGHT\.RAW\.LOADING"),
        ("select|insert|update", RAW_TABLES),
    ),
    "INSIGHT_RETENTION": (*IN_RAW, ("usage", r"warehouse INSIGHT_LOADING"), ("select|delete", RAW_TABLES)),
    "INSIGHT_TRANSFORMER": (
        *IN_RAW,
        ("usage", r"warehouse INSIGHT_TRANSFORMING"),
        ("select", RAW_TABLES),
        ("usage|create table|create view", r"schema MARKETING_INSIGHT\.(STAGING|MARTS|ML|SNAPSHOTS|TEST_FAILURES)"),
        ("create schema", r"database MARKETING_INSIGHT"),
        ("usage", r"schema MARKETING_INSIGHT\.GOVERNANCE"),
        ("apply", r"(tag|row access policy) MARKETING_INSIGHT\.GOVERNANCE\.\w+"),
    ),
    # Nobody signs in as the owner but an administrator.
    "INSIGHT_OWNER": (
        ("create database|create warehouse", "account"),
        ("apply tag|apply masking policy|apply row access policy", "account"),
    ),
}


def test_every_statement_is_one_of_snowflakes() -> None:
    linter = Linter(dialect="snowflake")
    unknown = [
        statement.text
        for statement in enterprise()
        if linter.parse_string(f"{statement.text};").violations
        and not any(re.fullmatch(known, statement.text) for known in UNKNOWN_TO_THE_PARSER)
    ]
    assert unknown == []
    assert linter.parse_string("create masking pollicy p as (v varchar) returns varchar -> null;").violations


def test_no_role_may_do_more_than_it_is_for() -> None:
    assert complaints(enterprise()) == []
    assert set(grants(enterprise())) == set(ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        "grant select on all tables in schema MARKETING_INSIGHT.RAW to role INSIGHT_SERVER",
        "grant insert on future tables in schema MARKETING_INSIGHT.MARTS to role INSIGHT_SERVER",
        "grant usage on schema MARKETING_INSIGHT.MARTS to role INSIGHT_SERVER",
        "grant usage on all schemas in database MARKETING_INSIGHT to role INSIGHT_SERVER",
        "grant select on future tables in database MARKETING_INSIGHT to role MARKETING_ANALYST",
        "grant usage on warehouse INSIGHT_TRANSFORMING to role INSIGHT_SERVER",
        "grant select, delete on all tables in schema MARKETING_INSIGHT.RAW to role INSIGHT_LOADER",
        "grant insert on all tables in schema MARKETING_INSIGHT.MARTS to role INSIGHT_LOADER",
        "grant ownership on database MARKETING_INSIGHT to role INSIGHT_TRANSFORMER",
        "grant select on all tables in schema MARKETING_INSIGHT.MARTS to role PUBLIC",
        "grant manage grants on account to role INSIGHT_OWNER",
    ],
)
def test_one_grant_too_many_is_noticed(text: str) -> None:
    assert len(complaints([*enterprise(), Statement(file="05_grants.sql", line=1, text=text)])) == 1


def test_each_role_has_what_it_works_with() -> None:
    given = grants(enterprise())
    tables = "tables in schema MARKETING_INSIGHT.RAW"
    assert {("insert", f"all {tables}"), ("insert", f"future {tables}")} <= given["INSIGHT_LOADER"]
    assert {("delete", f"all {tables}"), ("delete", f"future {tables}")} <= given["INSIGHT_RETENTION"]
    assert {("select", f"all {tables}"), ("select", f"future {tables}")} <= given["INSIGHT_TRANSFORMER"]
    marts = "tables in schema MARKETING_INSIGHT.MARTS"
    for reader in ("INSIGHT_SERVER", "MARKETING_ANALYST"):
        assert {("select", f"all {marts}"), ("select", f"future {marts}")} <= given[reader]
        assert ("usage", "future schemas in database MARKETING_INSIGHT") in given[reader]


def test_schemas_of_builds_are_there_before_readers_may_enter_what_is_new() -> None:
    places = [(index, statement.text) for index, statement in enumerate(enterprise())]
    first_reader = min(index for index, text in places if "future schemas" in text)
    made = [(index, text.split()[-1]) for index, text in places if text.startswith("create schema")]
    assert {schema.split(".")[1] for _, schema in made} >= {"RAW", "STAGING", "MARTS", "SNAPSHOTS", "GOVERNANCE"}
    assert all(index < first_reader for index, _ in made)
    # Those that dbt would make otherwise, and readers could then enter.
    project = yaml.safe_load((REPOSITORY / "dbt" / "dbt_project.yml").read_text())
    dbts = set(re.findall(r"'\+schema': '(\w+)'", str(project)))
    assert dbts
    assert {name.upper() for name in dbts} <= {schema.split(".")[1] for _, schema in made}


def test_no_administrator_inherits_a_service() -> None:
    inherited = {
        (found["role"], found["to"]) for statement in enterprise() if (found := ROLE_GRANT.fullmatch(statement.text))
    }
    # The pipeline loads and builds in one process. Whoever owns the account reads no customers by it.
    assert inherited == {
        ("INSIGHT_LOADER", "INSIGHT_PIPELINE"),
        ("INSIGHT_TRANSFORMER", "INSIGHT_PIPELINE"),
        ("INSIGHT_OWNER", "SYSADMIN"),
    }


def test_the_raw_tables_are_those_that_the_loader_fills() -> None:
    from snowflake.sqlalchemy import snowdialect

    from workers.snowflake_build import _CLAIMS
    from workers.snowflake_raw import _TURNS

    written = [squeezed(s.text) for s in enterprise() if s.file.startswith("04_") and s.text.startswith("create table")]
    known = [
        squeezed(str(CreateTable(table, if_not_exists=True).compile(dialect=snowdialect.dialect())))
        for table in (*RAW.sorted_tables, _TURNS, _CLAIMS)
    ]
    assert sorted(written) == sorted(known)


def test_the_pipes_are_those_that_the_loader_streams_through() -> None:
    from snowflake.sqlalchemy import snowdialect

    from workers.snowpipe import pipe_statement

    written = [squeezed(statement.text) for statement in enterprise() if statement.text.startswith("create pipe")]
    known = [squeezed(pipe_statement(table, snowdialect.dialect())) for table in EVENT_TABLES]
    assert sorted(written) == sorted(known)


def squeezed(ddl: str) -> str:
    return re.sub(r"\s+", "", ddl.lower().replace("marketing_insight.raw.", "raw."))


def test_the_standard_edition_gets_nothing_that_it_lacks_and_no_readers_without_masks() -> None:
    statements = read_account(AccountNames(), edition=Edition.STANDARD)
    text = "\n".join(statement.text for statement in statements)
    assert not re.search(r"\btag\b|masking|row access|max_cluster_count", text)
    assert max(int(days) for days in re.findall(r"data_retention_time_in_days = (\d+)", text)) == 1
    assert "MARKETING_ANALYST" not in grants(statements)
    assert {"INSIGHT_LOADER", "INSIGHT_TRANSFORMER", "INSIGHT_SERVER"} <= set(grants(statements))


@pytest.mark.parametrize(
    "names",
    [
        {"database": "x; drop database y"},
        {"database": 'X" Y'},
        {"prefix": "1ST"},
        {"prefix": ""},
        {"analyst": "accountadmin"},
        {"analyst": "insight_server"},
        {"prefix": "A" * 129},
        {"database": "${prefix}"},
    ],
)
def test_what_is_no_plain_name_never_reaches_a_statement(names: dict[str, str]) -> None:
    with pytest.raises(SettingError) as refusal:
        AccountNames(**names)
    assert refusal.value.hint


def test_names_are_put_in_everywhere() -> None:
    names = AccountNames(database="shop", prefix="shop_dev", analyst="reader")
    text = "\n".join(statement.text for statement in read_account(names, edition=Edition.ENTERPRISE))
    assert "${" not in text
    assert not re.search(r"\b(MARKETING_INSIGHT|INSIGHT_|MARKETING_ANALYST)", text)
    assert "grant usage on warehouse SHOP_DEV_SERVING to role SHOP_DEV_SERVER" in text


def test_a_file_that_names_what_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "01_wrong.sql").write_text("drop database ${databse};", encoding="utf-8")
    with pytest.raises(SettingError, match="names databse"):
        read_account(AccountNames(), edition=Edition.ENTERPRISE, folder=tmp_path)


def test_semicolons_in_texts_and_comments_end_no_statement(tmp_path: Path) -> None:
    (tmp_path / "01_odd.sql").write_text("-- a; b\nselect ';' -- c; d\n, '--';\n\nselect 2", encoding="utf-8")
    found = read_account(AccountNames(), edition=Edition.ENTERPRISE, folder=tmp_path)
    assert [(each.line, each.text) for each in found] == [(2, "select ';' -- c; d\n, '--'"), (5, "select 2")]


def test_the_account_is_made_in_order_and_again_without_effect(snowflake: SnowflakeEmulator) -> None:
    names = AccountNames(database="SETUP")
    statements = read_account(names, edition=Edition.ENTERPRISE)
    with closing(connect_account(snowflake.url("SETUP_ADMIN"))) as connection:
        kept = []
        for _ in range(2):
            before, told = len(snowflake.statements()), list[Statement]()
            apply_account(connection, statements, progress=told.append)
            sent = [each["sql"] for each in snowflake.statements()[before:]]
            assert sent == [statement.text for statement in statements]
            assert told == list(statements)
            kept.append(
                [
                    connection.exec_driver_sql(f"select * from SETUP.GOVERNANCE.{table}").fetchall()
                    for table in ("PSEUDONYM_KEYS", "ROW_ENTITLEMENTS")
                ]
            )
    (secrets, entitlements), again = kept
    assert again == kept[0]
    assert (len(secrets), entitlements) == (1, [("MARKETING_ANALYST", "*")])


def test_a_statement_that_fails_is_named_with_what_to_do(snowflake: SnowflakeEmulator, tmp_path: Path) -> None:
    text = "create schema one;\n\nalter table nowhere rename to here;\ncreate schema two;"
    (tmp_path / "01_first.sql").write_text(text, encoding="utf-8")
    statements = read_account(AccountNames(), edition=Edition.ENTERPRISE, folder=tmp_path)
    with closing(connect_account(snowflake.url("FAILS"))) as connection:
        with pytest.raises(AccountError) as failure:
            apply_account(connection, statements, progress=lambda _: None)
        made = {row[1].upper() for row in connection.exec_driver_sql("show schemas").fetchall()}
    place = "Statement 2 of 3 failed (docs/snowflake/01_first.sql, line 3): alter table nowhere rename to here"
    assert failure.value.message.startswith(place)
    assert "The 1 before it hold" in failure.value.hint
    assert "ONE" in made
    assert "TWO" not in made


@pytest.mark.parametrize("url", ["duckdb:///x", "nonsense", "snowflake://account/SNOWFLAKE"])
def test_an_administrators_url_that_cannot_be_used_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingError) as refusal:
        connect_account(url)
    assert url not in refusal.value.message
    assert "snowflake://USER@ACCOUNT" in refusal.value.hint


def test_marts_are_marked_as_their_definitions_say() -> None:
    sales, customers = hooked("fct_sales"), hooked("dim_customer")
    tag = "B.GOVERNANCE.PERSONAL_DATA"
    assert f"alter table B.MARTS.fct_sales modify column customer_id set tag {tag} = 'identifier'" in sales
    assert (
        "alter table B.MARTS.fct_sales add row access policy B.GOVERNANCE.ROWS_OF_EVERYBODY on (customer_id)" in sales
    )
    marked = {found for line in customers for found in re.findall(r"modify column (\w+) set tag", line)}
    assert marked == {"customer_id", "gender", "location", "tenure_months", "tenure_band"}
    assert any(line.endswith("ROWS_BY_LOCATION on (location)") for line in customers)
    assert hooked("fct_sales", target="duckdb") == []
    assert hooked("fct_sales", governance="") == []
    assert hooked("dim_products") == []


def test_every_mart_with_a_customer_is_masked_and_filtered() -> None:
    for file in (REPOSITORY / "dbt" / "models" / "marts").glob("[a-z]*.yml"):
        model = definition(file.stem)
        if "customer_id" in model["columns"]:
            assert model["columns"]["customer_id"]["meta"] == {"personal_data": "identifier"}, file.name
            assert model["config"]["meta"]["row_policy"]["column"] in model["columns"], file.name


def test_policies_and_tags_that_dbt_names_are_made() -> None:
    made = " ".join(statement.text for statement in enterprise())
    for model in ("dim_customer", "fct_sales", "fct_customer_segments"):
        policy = definition(model)["config"]["meta"]["row_policy"]["name"]
        assert f"create row access policy if not exists MARKETING_INSIGHT.GOVERNANCE.{policy} " in made
    assert "create tag if not exists MARKETING_INSIGHT.GOVERNANCE.PERSONAL_DATA" in made


def definition(model: str) -> dict[str, Any]:
    """The model as dbt's hooks see it."""
    (found,) = yaml.safe_load((REPOSITORY / "dbt" / "models" / "marts" / f"{model}.yml").read_text())["models"]
    columns = {
        column["name"]: {"name": column["name"], "meta": column.get("config", {}).get("meta", {})}
        for column in found["columns"]
    }
    return {"columns": columns, "config": {"meta": found.get("config", {}).get("meta", {})}}


def hooked(model: str, *, target: str = "snowflake", governance: str = "GOVERNANCE") -> list[str]:
    """The statements that dbt runs after it has built the mart."""
    macro = (REPOSITORY / "dbt" / "macros" / "protect_personal_data.sql").read_text()
    template = jinja2.Environment().from_string(macro + "{{ protect_personal_data() }}")
    text = template.render(
        target={"type": target, "database": "B"},
        var=lambda _: governance,
        model=definition(model),
        this=f"B.MARTS.{model}",
    )
    return [line.strip() for line in text.split(";") if line.strip()]


def test_the_command_prints_the_account_or_says_what_it_lacks() -> None:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(snowflake_commands, ["bootstrap", *arguments])

    printed = run("--dry-run", "--database", "shop").stdout
    expected = read_account(AccountNames(database="SHOP"), edition=Edition.ENTERPRISE)
    places = [printed.index(f"{statement.text};") for statement in expected if statement.text.startswith("alter ")]
    assert all(f"{statement.text};" in printed for statement in expected)
    assert places == sorted(places)
    assert "INSIGHT_SNOWFLAKE_ADMIN_URL is not set" in str(run("--apply").exception)
    assert run().exit_code == 2
    assert run("--apply", "--dry-run").exit_code == 2


def test_the_command_applies_the_account(snowflake: SnowflakeEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_ADMIN_URL", snowflake.url("BY_COMMAND"))
    # The service's own way in is not the administrator's.
    monkeypatch.setenv("INSIGHT_SNOWFLAKE_TOKEN_FILE", "/nowhere")
    applied = CliRunner().invoke(
        snowflake_commands,
        ["bootstrap", "--apply", "--database", "c", "--edition", "standard"],
    )
    assert applied.exit_code == 0, applied.exception
    total = len(read_account(AccountNames(database="c"), edition=Edition.STANDARD))
    assert f"{total} statements of 7 files hold" in applied.stdout
