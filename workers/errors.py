"""What can go wrong in a worker, as one tree.

Every error says what happened (`message`) and what to do about it (`hint`), each in one readable line.

    WorkerError
    ├── SettingError            a setting or an argument is wrong; nothing was started
    ├── SourceError             one file cannot be loaded; its owner can fix it, other files still load
    │   ├── UnreadableFileError     not text in UTF-8, not a workbook, changed while it was read
    │   ├── UnknownFileKindError    the header is not one of the known kinds
    │   ├── CutOffError             the file ends in the middle of a line
    │   └── TooManyBadRowsError     so many rows are bad that the file itself must be wrong
    ├── BuildError              dbt could not build the marts, or a test failed; nothing was published
    ├── SegmentsError           the customers could not be put into segments; nothing was published
    ├── PipelineBusyError       another run is under way
    ├── PublicationError        a version cannot be published or gone back to; the one before serves on
    └── WarehouseError          the warehouse refused; nothing was committed
        └── WarehouseLockedError    another process kept the warehouse for too long
"""


class WorkerError(Exception):
    """An error that a person reads: what happened, and what to do.

    Attributes
    ----------
    message
        What happened, one sentence without a full stop.
    hint
        What to do about it.

    """

    def __init__(self, message: str, *, hint: str) -> None:
        """Keep both texts."""
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingError(WorkerError):
    """A setting or an argument is wrong; nothing was started."""


class SourceError(WorkerError):
    """One file cannot be loaded; nothing of it was."""


class UnreadableFileError(SourceError):
    """The file's bytes are not what its name promises."""


class UnknownFileKindError(SourceError):
    """The file's header is not one of the known kinds."""


class CutOffError(SourceError):
    """The file ends in the middle of a line."""


class TooManyBadRowsError(SourceError):
    """So many rows are bad that the file itself must be wrong."""


class WarehouseError(WorkerError):
    """The warehouse refused; nothing was committed."""


class WarehouseLockedError(WarehouseError):
    """Another process kept the warehouse for longer than the time-box."""


class PublicationError(WorkerError):
    """A version cannot be published, or gone back to; readers see the one before."""


class BuildError(WorkerError):
    """dbt could not build the marts, or a test failed; nothing was published."""


class SegmentsError(WorkerError):
    """The customers could not be put into segments; nothing was published."""


class PipelineBusyError(WorkerError):
    """Another run of the pipeline is under way."""
