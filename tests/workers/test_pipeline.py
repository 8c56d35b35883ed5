"""The pipeline as a whole: what it publishes, what it refuses, and what a kill leaves."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import duckdb
import pytest
from filelock import FileLock

from tests.conftest import REPOSITORY, SILENT, Published, warehouse_file
from workers.errors import BuildError, PipelineBusyError, PublicationError, SettingError, SourceError
from workers.generate import generate
from workers.locations import read_location
from workers.pipeline import Pipeline
from workers.settings import WorkerSettings


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-data")
    generate(folder, scale=0.02, seed=1)
    return folder


@pytest.fixture
def home(tmp_path: Path, synthetic: Published) -> WorkerSettings:
    """A copy of the published synthetic data, free to be ruined."""
    shutil.copytree(synthetic.warehouse.parent, tmp_path / "home")
    return WorkerSettings(
        _env_file=None,
        warehouse_url=f"duckdb:///{tmp_path}/home/warehouse.duckdb",
        publication_dir=tmp_path / "home" / "publications",
    )


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


def test_a_file_that_cannot_be_loaded_stops_the_publication_but_not_the_other_files(
    home: WorkerSettings, small_data: Path, tmp_path: Path
) -> None:
    before = Pipeline(home).store.current()
    data = shutil.copytree(small_data, tmp_path / "data")
    (data / "notes.csv").write_text("a,b\n1,2\n")

    with pytest.raises(SourceError, match=r"(?s)1 of 6 files.*notes\.csv"):
        Pipeline(home).run(data, SILENT)

    assert Pipeline(home).store.current() == before
    with duckdb.connect(warehouse_file(home), read_only=True) as reader:
        # Five from before and three new ones: coupons and taxes are the same for every seed.
        assert reader.execute("SELECT count(*) FROM raw.load_files").fetchone() == (8,)


def test_a_failing_test_publishes_nothing_and_shows_its_rows(home: WorkerSettings, project: Path) -> None:
    before = Pipeline(home).store.current()
    replace_in(
        project / "models/marts/fct_sales.sql", "from discounted", "from discounted where transaction_id % 97 > 0"
    )
    broken = home.model_copy(update={"dbt_project_dir": project})

    with pytest.raises(BuildError) as caught:
        Pipeline(broken).publish(SILENT)

    assert Pipeline(home).store.current() == before
    assert "test customers_purchases_add_up_to_the_sales" in caught.value.message
    assert "{'customer_id': '" in caught.value.message
    assert "nothing was published" in caught.value.message


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


def test_a_build_happens_only_for_something_new_if_so_asked(home: WorkerSettings, synthetic: Published) -> None:
    before = Pipeline(home).store.current()

    assert Pipeline(home).run_if_changed(synthetic.data, SILENT) == before

    later = Pipeline(home.model_copy(update={"as_of": date(2019, 10, 31)}))
    version = later.run_if_changed(synthetic.data, SILENT)
    assert version != before
    with duckdb.connect(home.publication_dir / version / "data.duckdb", read_only=True) as reader:
        assert reader.execute("SELECT as_of FROM marts.publication_facts").fetchone() == (date(2019, 10, 31),)


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


@pytest.mark.parametrize("damage", [pytest.param("the folder is gone", marks=pytest.mark.full), "the record is cut"])
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


def test_two_runs_at_once_are_refused(home: WorkerSettings, small_data: Path) -> None:
    with FileLock(home.publication_dir / ".lock"), pytest.raises(PipelineBusyError):
        Pipeline(home).run(small_data, SILENT)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "duckdb:///:memory:",
        "duckdb://a:b/c",
        "snowflake://user:secret@account",
        "snowflake://user:secret@account/db?protocol=http",
    ],
)
def test_a_warehouse_that_cannot_be_is_a_clear_error(url: str) -> None:
    with pytest.raises(SettingError, match="The warehouse") as caught:
        read_location(url)
    assert "secret" not in caught.value.message
    assert "INSIGHT_WAREHOUSE_URL" in caught.value.hint


def test_kills_at_any_point_leave_the_published_version_and_the_next_run_succeeds(
    home: WorkerSettings, small_data: Path
) -> None:
    before = Pipeline(home).store.current()
    environment = os.environ | {
        "INSIGHT_WAREHOUSE_URL": home.warehouse_url,
        "INSIGHT_PUBLICATION_DIR": str(home.publication_dir),
    }
    command = [str(Path(sys.executable).with_name("insight")), "pipeline", "run", "--data", str(small_data)]
    # From before the first file is loaded until dbt is well on its way.
    for seconds in (0.8, *(random.uniform(1, 10) for _ in range(2))):
        run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert Pipeline(home).store.current() == before, f"after a kill at {seconds:.1f} s"

    version = Pipeline(home).run(small_data, SILENT)

    assert version != before
    with duckdb.connect(home.publication_dir / version / "data.duckdb", read_only=True) as reader:
        doubled = "SELECT sale_id FROM marts.fct_sales GROUP BY ALL HAVING count(*) > 1"
        assert reader.execute(doubled).fetchall() == []
