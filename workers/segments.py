"""The pipeline's segmentation: marts that are built, asked through the API, become segments in these marts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from api.candidate import serving
from api.errors import SemanticLayerError
from clients.sdk import ApiError, Client
from workers.errors import SegmentsError, SettingError
from workers.settings import WorkerSettings

SEED = "customer_segments"
# What has to be built anew once the seed has rows.
DEPENDENTS = f"{SEED}+"

_READY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerSegments:
    """The model that put the customers into segments, as plain data, and what the operator should know."""

    document: Mapping[str, Any] | None
    notes: tuple[str, ...]


class ProjectCopy:
    """The dbt project, with its semantic models beside it, in a folder of the pipeline's own: a seed gets rows there.

    A copy, as the project itself may be read-only and is under version control; and whole, as dbt writes what it
    compiles to paths that it makes of the sources': a folder of seeds elsewhere is overwritten with SQL.
    """

    def __init__(self, project: Path, folder: Path) -> None:
        self._project = project
        self._folder = folder

    @property
    def path(self) -> Path:
        """The folder of the copied project."""
        return self._folder / self._project.resolve().name

    def renew(self) -> None:
        """Have the project as it is now, its seeds included."""
        shutil.rmtree(self._folder, ignore_errors=True)
        for source in (self._project.resolve(), self._project.resolve().parent / "semantic_models"):
            shutil.copytree(source, self._folder / source.name, ignore=_LEFT_BEHIND)

    def write_segments(self, rows: bytes) -> None:
        """Give the customers' segments as CSV, header included."""
        (self.path / "seeds" / f"{SEED}.csv").write_bytes(rows)


_LEFT_BEHIND = shutil.ignore_patterns("target", "logs", ".user.yml")


def model_dir(settings: WorkerSettings) -> Path:
    """The folder of the models."""
    return settings.model_dir or settings.publication_dir.with_name("models")


def promoted_model(settings: WorkerSettings) -> str | None:
    """The version of the model that puts customers into segments; None before there is one, and when it is off."""
    if not settings.segments:
        return None
    require_libraries()
    from ml.registry import Registry

    return Registry(model_dir(settings)).promoted()


def segment_customers(
    candidate: AbstractContextManager[Path],
    settings: WorkerSettings,
    project: ProjectCopy,
    *,
    asking: Callable[[str], None],
) -> CustomerSegments:
    """The segments of the candidate's customers, written into the project's seed; then dbt has to build `DEPENDENTS`.

    The candidate is served to this machine alone, and its features are asked of it as anybody would.

    Raises
    ------
    SegmentsError
        The features cannot be read, or the model cannot.
    """
    from ml.errors import SegmentationError
    from ml.features import read_features
    from ml.registry import Registry
    from ml.train import segment

    asking("features of the customers")
    try:
        with (
            candidate as folder,
            serving(folder, warehouse_url=settings.warehouse_url) as access,
            Client(access.url, key=access.key) as client,
        ):
            client.wait_until_ready(_READY_S)
            table = read_features(client)
        asking("segments of the customers")
        segmented = segment(table, Registry(model_dir(settings)))
    except (ApiError, SegmentationError) as error:
        raise _failed(error.message, error.hint) from error
    except SemanticLayerError as error:
        raise _failed(error.detail, error.hint) from error
    if segmented.seed is not None:
        project.write_segments(segmented.seed)
    return CustomerSegments(document=segmented.document, notes=segmented.notes)


def _failed(message: str, hint: str) -> SegmentsError:
    return SegmentsError(
        f"The customers could not be put into segments: {message}", hint=f"{hint.rstrip('.')}. {_WAY_OUT}"
    )


_WAY_OUT = "To publish without segments: INSIGHT_SEGMENTS=off"


def require_libraries() -> None:
    """Return if what segments are made with is installed; raises `SettingError`."""
    missing = [name for name in ("sklearn", "skops") if find_spec(name) is None]
    if missing:
        raise SettingError(
            f"Segments need {' and '.join(missing)}, which are not installed",
            hint=f"Install the extra `ml`: make setup. {_WAY_OUT}",
        )
