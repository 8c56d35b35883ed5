"""Publications whose sales take as long to read, and are as many, as a test needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

from tests.conftest import Published

HALF_A_SECOND = 10**8  # or two on a busy machine
NEVER = 10**13


def slow_publications(published: Published, folder: Path, *, steps: int = 0, copies: int = 1) -> Path:
    """A copy of the publications under `folder`, in which the sales are a view over themselves.

    Whoever reads them waits for `steps` steps first, and each line is there `copies` times under as many keys (`sale`).
    """
    root = Path(shutil.copytree(published.settings.publication_dir, folder / "publications"))
    with duckdb.connect(str(root / published.version / "data.duckdb")) as connection:
        connection.execute("ALTER TABLE marts.fct_sales RENAME TO fct_sales_as_stored")
        connection.execute(
            "CREATE VIEW marts.fct_sales AS "
            "SELECT line.* REPLACE (CASE WHEN n = 0 THEN line.sale_id ELSE line.sale_id || '-' || n END AS sale_id) "
            f"FROM marts.fct_sales_as_stored AS line, range({copies}) AS copy(n) "
            f"WHERE (SELECT count(*) FROM range({steps}) AS t(n) WHERE hash(n) % 7 = 1) >= 0"
        )
    return root
