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
    ├── RejectedMessage         a message is not what its topic promises: it becomes a dead letter
    ├── StreamError             messages cannot be taken or sent
    │   ├── BrokerAway              Kafka does not answer, or refuses for now: try again later
    │   ├── DeadLettersRefused      a dead letter cannot be written: its partition waits, others go on
    │   └── EventsLost              messages are gone that were not loaded yet: an operator has to decide
    ├── ApiError                a source API did not give what was asked for
    │   ├── ApiAway                 not now: no answer, too busy, budget used up: try again later
    │   └── ApiRefused              not this way: a wrong key, a wrong parameter; an operator has to act
    ├── AccountError            a statement of the Snowflake account failed; those before it hold
    ├── PublicationError        a version cannot be published or gone back to; the one before serves on
    └── WarehouseError          the warehouse refused; nothing was committed
        └── WarehouseLockedError    another process kept the warehouse for too long

A consumer knows three outcomes. Reject: `RejectedMessage`. Try again later, holding its messages back:
`WarehouseError`, `BrokerAway`, `DeadLettersRefused`. Stop before anything is committed: `EventsLost`, and whatever
is not in this tree.
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


class AccountError(WorkerError):
    """A statement of the Snowflake account failed, or the account cannot be reached; what was done before holds."""


class BuildError(WorkerError):
    """dbt could not build the marts, or a test failed; nothing was published."""


class SegmentsError(WorkerError):
    """The customers could not be put into segments; nothing was published."""


class PipelineBusyError(WorkerError):
    """Another run of the pipeline is under way."""


class RejectedMessage(WorkerError):
    """A message is not what its topic promises.

    Attributes
    ----------
    kind
        What is wrong, as a word: the class of the error in a dead letter's headers, and in metrics.

    """

    def __init__(self, message: str, *, kind: str) -> None:
        """Keep what is wrong; the text holds names of fields, never their values."""
        super().__init__(message, hint="Mend its producer; then: insight stream deadletters replay")
        self.kind = kind


class StreamError(WorkerError):
    """Messages cannot be taken or sent."""


class BrokerAway(StreamError):
    """Kafka does not answer, or refuses for now."""


class DeadLettersRefused(StreamError):
    """A dead letter cannot be written."""


class EventsLost(StreamError):
    """Messages are gone that were not loaded yet."""


class ApiError(WorkerError):
    """A source API did not give what was asked for."""


class ApiAway(ApiError):
    """No answer for now.

    Attributes
    ----------
    retry_after_s
        How long the API asks to be left alone, in seconds; None, if it does not say.

    """

    def __init__(self, message: str, *, hint: str, retry_after_s: float | None = None) -> None:
        """Keep the texts, and how long to wait."""
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ApiRefused(ApiError):
    """The API will not answer a request like this one, however often it is repeated."""
