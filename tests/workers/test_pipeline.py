"""The pipeline as a whole: what it publishes, what it refuses, and what a kill leaves.

On the emulated Snowflake a build takes minutes: what needs one there is for `make test-full`.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import REPOSITORY, SILENT, Published
from tests.sites import DuckDbSite, Site, SnowflakeSite
from tests.snowflake import SnowflakeEmulator
from tests.snowflake_published import published_on_snowflake, snowflake_settings
from workers.errors import BuildError, PipelineBusyError, PublicationError, SourceError
from workers.generate import generate
from workers.locations import DuckDbFile, read_location
from workers.pipeline import Pipeline, build_database
from workers.settings import WorkerSettings
from workers.sinks import open_warehouse


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-data")
    generate(folder, scale=0.02, seed=1)
    return folder


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other-data")
    generate(folder, scale=0.02, seed=7)
    return folder


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path, synthetic: Published) -> WorkerSettings:
    """A copy of the published synthetic data, free to be ruined; or what the fixture has that the test names."""
    if other := getattr(request, "param", None):
        settings: WorkerSettings = request.getfixturevalue(other)
        return settings
    shutil.copytree(synthetic.warehouse.parent, tmp_path / "home")
    return WorkerSettings(
        _env_file=None,
        warehouse_url=f"duckdb:///{tmp_path}/home/warehouse.duckdb",
        publication_dir=tmp_path / "home" / "publications",
    )


@pytest.fixture(scope="module")
def marts_on_snowflake(
    snowflake: SnowflakeEmulator, synthetic: Published, tmp_path_factory: pytest.TempPathFactory
) -> WorkerSettings:
    """The synthetic marts, published on the emulated account; nothing can be built there."""
    return published_on_snowflake(snowflake, synthetic, tmp_path_factory, database="TAKEN_OVER").settings


@pytest.fixture(scope="module")
def built_on_snowflake(
    snowflake: SnowflakeEmulator, other_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> WorkerSettings:
    """A small data set, loaded, built and published on the emulated account."""
    settings = snowflake_settings(snowflake, tmp_path_factory.mktemp("built"), database="BUILT")
    Pipeline(settings).run(other_data, SILENT)
    return settings


QUICK_ON_BOTH = pytest.mark.parametrize(
    "home", [None, "marts_on_snowflake"], ids=["duckdb", "snowflake"], indirect=True
)
ON_BOTH = pytest.mark.parametrize(
    "home",
    [
        pytest.param(None, id="duckdb"),
        pytest.param("built_on_snowflake", id="snowflake", marks=[pytest.mark.full, pytest.mark.timeout(1_800)]),
    ],
    indirect=True,
)


@pytest.fixture
def site(home: WorkerSettings, request: pytest.FixtureRequest) -> Site:
    """The warehouse of the home."""
    match read_location(home.warehouse_url):
        case DuckDbFile() as file:
            return DuckDbSite(file.path)
        case account:
            return SnowflakeSite(request.getfixturevalue("snowflake"), database=account.database)


@pytest.fixture
def loaded_data(site: Site, synthetic: Published, other_data: Path) -> Path:
    """What the home was published from."""
    return synthetic.data if isinstance(site, DuckDbSite) else other_data


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the dbt project and the semantic models, free to be ruined."""
    for folder in ("dbt", "semantic_models"):
        ignored = shutil.ignore_patterns("target", "logs", "*.user.yml")
        shutil.copytree(REPOSITORY / folder, tmp_path / "project" / folder, ignore=ignored)
    return tmp_path / "project" / "dbt"


def replace_in(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@QUICK_ON_BOTH
def test_a_file_that_cannot_be_loaded_stops_the_publication_but_not_the_other_files(
    home: WorkerSettings, small_data: Path, tmp_path: Path
) -> None:
    before = Pipeline(home).store.current()
    data = shutil.copytree(small_data, tmp_path / "data")
    (data / "notes.csv").write_text("a,b\n1,2\n")

    with pytest.raises(SourceError, match=r"(?s)1 of 6 files.*notes\.csv"):
        Pipeline(home).run(data, SILENT)

    assert Pipeline(home).store.current() == before
    with open_warehouse(home.warehouse_url) as warehouse:
        loaded = warehouse.loaded_hashes()
    assert {hashlib.sha256(file.read_bytes()).hexdigest() for file in small_data.glob("*.csv")} <= loaded.keys()


@ON_BOTH
def test_a_failing_test_publishes_nothing_and_shows_its_rows(home: WorkerSettings, site: Site) -> None:
    before = Pipeline(home).store.current()
    turned = "UPDATE raw.online_sales SET quantity = -quantity WHERE line_number = 2"
    site.execute(turned)
    try:
        with pytest.raises(BuildError) as caught:
            Pipeline(home).publish(SILENT)
    finally:
        site.execute(turned)

    assert Pipeline(home).store.current() == before
    assert re.search(r"test \w+quantity\w*: Got 1 result", caught.value.message)
    assert re.search(r"\{.*'quantity': '-\d+'", caught.value.message)
    assert "nothing was published" in caught.value.message


@pytest.mark.full
def test_a_broken_model_publishes_nothing_and_is_named(home: WorkerSettings, project: Path) -> None:
    before = Pipeline(home).store.current()
    replace_in(project / "models/marts/fct_marketing_spend.sql", "from ", "from no_such_")

    with pytest.raises(BuildError, match="fct_marketing_spend"):
        Pipeline(home.model_copy(update={"dbt_project_dir": project})).publish(SILENT)

    assert Pipeline(home).store.current() == before


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        pytest.param(
            "expr: quantity",
            "expr: quantity_sold",
            r"(units_sold|units_per_transaction) does not answer.*quantity_sold",
            id="a measure",
        ),
        pytest.param(
            "- name: sale_size\n",
            "- name: sale_size\n        expr: size_of_sale\n",
            r"refused.*size_of_sale",
            id="a dimension",
            marks=pytest.mark.full,
        ),
    ],
)
def test_a_definition_that_does_not_fit_the_mart_is_refused_at_the_rehearsal_and_named(
    home: WorkerSettings, project: Path, old: str, new: str, refusal: str
) -> None:
    before = Pipeline(home).store.current()
    replace_in(project.parent / "semantic_models" / "sales.yml", old, new)

    with pytest.raises(PublicationError, match=refusal) as caught:
        Pipeline(home.model_copy(update={"dbt_project_dir": project})).publish(SILENT)

    assert "semantic_models/" in caught.value.hint
    assert "\n" not in caught.value.message
    assert Pipeline(home).store.current() == before


def test_a_project_that_cannot_be_parsed_publishes_nothing(home: WorkerSettings, project: Path) -> None:
    before = Pipeline(home).store.current()
    (project / "models" / "broken.yml").write_text("models: [")

    with pytest.raises(BuildError, match="could not start"):
        Pipeline(home.model_copy(update={"dbt_project_dir": project})).publish(SILENT)

    assert Pipeline(home).store.current() == before


@ON_BOTH
def test_a_build_happens_only_for_something_new_if_so_asked(
    home: WorkerSettings, loaded_data: Path, site: Site
) -> None:
    before = Pipeline(home).store.current()

    assert Pipeline(home).run_if_changed(loaded_data, SILENT) == before

    later = Pipeline(home.model_copy(update={"as_of": date(2019, 10, 31)}))
    version = later.run_if_changed(loaded_data, SILENT)
    assert version != before
    as_of = site.rows("SELECT as_of FROM {marts}.publication_facts", of=home.publication_dir / version)
    assert as_of == [(date(2019, 10, 31),)]


@pytest.mark.full
def test_definitions_below_a_folder_named_target_count_and_what_dbt_wrote_does_not(
    home: WorkerSettings, project: Path, synthetic: Published, tmp_path: Path
) -> None:
    checkout = shutil.move(project.parent, tmp_path / "target" / "checkout")
    pipeline = Pipeline(home.model_copy(update={"dbt_project_dir": checkout / "dbt"}))
    first = pipeline.run_if_changed(synthetic.data, SILENT)

    (checkout / "dbt" / "target").mkdir(exist_ok=True)
    (checkout / "dbt" / "target" / "compiled.sql").write_text("select 1")
    assert pipeline.run_if_changed(synthetic.data, SILENT) == first

    replace_in(checkout / "semantic_models" / "sales.yml", "label: ", "label:  ")
    assert pipeline.run_if_changed(synthetic.data, SILENT) != first


@pytest.mark.full
@pytest.mark.parametrize("damage", ["the folder is gone", "the record is cut"])
def test_a_current_version_that_cannot_be_read_is_built_anew(
    home: WorkerSettings, synthetic: Published, damage: str
) -> None:
    store = Pipeline(home).store
    broken = store.current()
    assert broken is not None
    if damage == "the folder is gone":
        shutil.rmtree(store.root / broken)
    else:
        (store.root / broken / "publication.json").write_text("{")

    repaired = Pipeline(home).run_if_changed(synthetic.data, SILENT)

    assert repaired != broken
    assert store.current() == repaired
    assert store.versions() == (repaired,)
    assert Pipeline(home).run_if_changed(synthetic.data, SILENT) == repaired


@QUICK_ON_BOTH
def test_two_runs_at_once_are_refused(home: WorkerSettings, small_data: Path) -> None:
    with FileLock(home.publication_dir / ".lock"), pytest.raises(PipelineBusyError):
        Pipeline(home).run(small_data, SILENT)


@ON_BOTH
def test_kills_at_any_point_leave_the_published_version_and_the_next_run_succeeds(
    home: WorkerSettings, small_data: Path, site: Site
) -> None:
    before = Pipeline(home).store.current()
    environment = os.environ | {
        "INSIGHT_WAREHOUSE_URL": home.warehouse_url,
        "INSIGHT_PUBLICATION_DIR": str(home.publication_dir),
        "INSIGHT_SEGMENTS": str(home.segments),
    }
    command = [str(Path(sys.executable).with_name("insight")), "pipeline", "run", "--data", str(small_data)]
    written = build_database(home).folder / "run"

    def is_building(since: float) -> bool:
        return any(file.stat().st_mtime > since for file in written.rglob("*.sql"))

    for moment in ("before the first file is loaded", "while files are loaded", "while dbt builds"):
        started = time.time()
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while moment == "while dbt builds" and not is_building(started):
            assert run.poll() is None, "it ended before dbt began"
            time.sleep(0.05)
        time.sleep(0.8 if moment.startswith("before") else random.uniform(0.5, 2.0))
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
        assert Pipeline(home).store.current() == before, f"after a kill {moment}"
        site.let_time_pass()

    version = Pipeline(home).run(small_data, SILENT)

    assert version != before
    doubled = "SELECT sale_id FROM {marts}.fct_sales GROUP BY ALL HAVING count(*) > 1"
    assert site.rows(doubled, of=home.publication_dir / version) == []
