"""Publications whose sales are slow, hungry or many, as a test needs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from tests.conftest import Published

# Steps of `slowed`.
HALF_A_SECOND = 10**8  # or two on a busy machine
NEVER = 10**13

# What stands in for the sales, over the table `whole`. The service sees only a table's name, as it is a view.
RUNAWAY = "SELECT * FROM whole WHERE (SELECT count(*) FROM range(1000000000000) AS t(n) WHERE hash(n) % 7 = 1) >= 0"
BOMB = (
    "SELECT * FROM whole WHERE "
    "(SELECT max(len(bomb)) FROM (SELECT list(n::varchar) AS bomb FROM range(90000000) AS t(n))) >= 0"
)


def sleeping(seconds: float) -> str:
    """Sales that take so long to read, without work for the machine."""
    return f"SELECT * FROM whole WHERE (SELECT coalesce(sleep_ms({round(seconds * 1000)}), 0)) >= 0"


def repeated(times: int) -> str:
    """Every line of the sales so many times, as lines of their own."""
    return f"SELECT * REPLACE (sale_id || '-' || nth AS sale_id) FROM whole, range({times}) AS copies(nth)"


def altered_publication(published: Published, root: Path, sales: str) -> Path:
    """A folder with a copy of the publication, in which the sales are what that SELECT says."""
    shutil.copytree(published.settings.publication_dir / published.version, root / published.version)
    (root / "current").write_text(published.version)
    with duckdb.connect(root / published.version / "data.duckdb") as database:
        database.execute("ALTER TABLE marts.fct_sales RENAME TO whole")
        database.execute(f"CREATE VIEW marts.fct_sales AS {sales.replace('whole', 'marts.whole')}")
    return root


def redefined_publication(published: Published, root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A folder with a copy of the publication, in whose semantic manifest something is changed."""
    shutil.copytree(published.settings.publication_dir / published.version, root / published.version)
    (root / "current").write_text(published.version)
    file = root / published.version / "semantic_manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return root


def slowed(*, steps: int = 0, copies: int = 1) -> str:
    """Sales that take so many steps to read, and whose lines are there so many times under as many keys."""
    return (
        "SELECT line.* REPLACE (CASE WHEN n = 0 THEN line.sale_id ELSE line.sale_id || '-' || n END AS sale_id) "
        f"FROM whole AS line, range({copies}) AS copy(n) "
        f"WHERE (SELECT count(*) FROM range({steps}) AS t(n) WHERE hash(n) % 7 = 1) >= 0"
    )
