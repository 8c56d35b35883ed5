"""What the pipeline learns of its customers: marts that are built are asked through the API, like by anybody else.

They become segments in these marts, and an outlook beside them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from api.errors import SemanticLayerError
from api.outlook_model import CUSTOMERS_FILE, OUTLOOK_FILE
from api.publication import SEGMENTS_FILE
from clients.sdk import ApiError, Client
from workers.errors import SegmentsError, SettingError
from workers.publish import Models
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from ml.outlook import Outlook
    from ml.train import Segmented

SEED = "customer_segments"
# What has to be built anew once the seed has rows.
DEPENDENTS = f"{SEED}+"

_READY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What customers were put into segments and foreseen with, and what the operator should know."""

    models: Models
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


def learn(
    candidate: AbstractContextManager[Path],
    settings: WorkerSettings,
    project: ProjectCopy,
    *,
    asking: Callable[[str], None],
) -> Learned:
    """The segments of the candidate's customers, written into the project's seed, and the outlook.

    Then dbt has to build `DEPENDENTS`. The candidate is served to this machine alone, and is asked as anybody would.

    Raises
    ------
    SegmentsError
        The features cannot be read, or the model cannot.
    """
    from ml.features import read_features
    from ml.history import read_history
    from ml.outlook import look_ahead
    from ml.registry import Registry
    from ml.train import segment

    asking("features of the customers")
    with in_our_words():
        with client_of(candidate, settings) as client:
            table, history = read_features(client), read_history(client)
        asking("segments of the customers")
        segmented = segment(table, Registry(model_dir(settings)))
        asking("outlook of customers and metrics")
        outlook = look_ahead(history)
    if segmented.seed is not None:
        project.write_segments(segmented.seed)
    return Learned(models=_files(segmented, outlook), notes=(*segmented.notes, *outlook.notes))


def _files(segmented: Segmented, outlook: Outlook) -> Models:
    files = write_outlook(outlook)
    if segmented.document is not None:
        files[SEGMENTS_FILE] = json.dumps(segmented.document, indent=1).encode()
    return Models(files=files)


def write_outlook(outlook: Outlook) -> dict[str, bytes]:
    """The files of a publication that hold the outlook, by name."""
    files = {OUTLOOK_FILE: json.dumps(outlook.document(), indent=1).encode()}
    if (customers := outlook.customer_table()) is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, customers.schema) as file:
            file.write_table(customers)
        files[CUSTOMERS_FILE] = sink.getvalue().to_pybytes()
    return files


@contextmanager
def client_of(candidate: AbstractContextManager[Path], settings: WorkerSettings) -> Iterator[Client]:
    """A client of the candidate, which is served to this machine alone for the length of the block."""
    from api.candidate import serving  # the whole service: seconds for a consumer that is to start at once

    with (
        candidate as folder,
        serving(folder, warehouse_url=settings.warehouse_url) as access,
        Client(access.url, key=access.key) as client,
    ):
        client.wait_until_ready(_READY_S)
        yield client


@contextmanager
def in_our_words() -> Iterator[None]:
    """Whatever fails in the block ends the run: raises `SegmentsError`."""
    from ml.errors import SegmentationError

    try:
        yield
    except (ApiError, SegmentationError) as error:
        raise _failed(error.message, error.hint) from error
    except SemanticLayerError as error:
        raise _failed(error.detail, error.hint) from error


def _failed(message: str, hint: str) -> SegmentsError:
    return SegmentsError(
        f"The customers could not be put into segments: {message}", hint=f"{hint.rstrip('.')}. {_WAY_OUT}"
    )


_WAY_OUT = "To publish without segments: INSIGHT_SEGMENTS=off"


def require_libraries() -> None:
    """Return if what segments are made with is installed; raises `SettingError`."""
    missing = [name for name in ("sklearn", "skops", "statsmodels") if find_spec(name) is None]
    if missing:
        raise SettingError(
            f"Segments need {' and '.join(missing)}, which are not installed",
            hint=f"Install the extra `ml`: make setup. {_WAY_OUT}",
        )
