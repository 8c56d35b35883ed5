"""One refresh, as a process of its own: `python -m workers.refreshing`, which `insight stream run` starts."""

from __future__ import annotations

import sys

from workers.errors import PipelineBusyError, WorkerError
from workers.pipeline import Pipeline, Watcher
from workers.settings import read_settings


def main() -> int:
    """0 if all that came is published, also if there was nothing new or another run is at it; 1 with the reason."""
    watcher = Watcher(loading=lambda _: None, loaded=lambda _: None, building=lambda _: None, built=lambda _: None)
    try:
        Pipeline(read_settings()).refresh(watcher)
    except PipelineBusyError:
        return 0
    except WorkerError as error:
        sys.stderr.write(f"{error.message}\n  hint: {error.hint}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
