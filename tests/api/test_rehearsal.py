"""A rehearsal is about definitions: what is rightly defined and too large for the engine holds nobody else up."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from structlog.testing import capture_logs

from api.opened import open_publication
from api.warehouse import EngineLimits
from tests.altered import BOMB, altered_publication
from tests.conftest import Published

SMALL = EngineLimits(memory_mb=64, threads=1, connections=1, query_timeout=timedelta(seconds=60))


async def test_what_is_too_large_for_the_engine_is_logged_and_the_others_are_rehearsed(
    synthetic: Published, tmp_path: Path
) -> None:
    folder = altered_publication(synthetic, tmp_path / "publications", BOMB) / synthetic.version
    publication = open_publication(folder, SMALL)

    with capture_logs() as logs:
        await publication.rehearse()
    publication.close()

    told = [log for log in logs if log["event"] == "too_large_to_rehearse"]  # services of other tests log beside it
    too_large = {log["name"] for log in told}
    assert "total_revenue" in too_large
    assert "marketing_spend" not in too_large
    assert all(log["hint"] for log in told)
