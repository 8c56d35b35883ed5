"""What can go wrong in a training, as one tree.

Every error says what happened (`message`) and what to do about it (`hint`), each in one readable line.

    SegmentationError
    ├── TooFewCustomersError    there are fewer than a segmentation can be told from
    ├── TooShortHistoryError    there are fewer days, or customers, than anything can be expected from
    ├── BadFeaturesError        the answer of the API is not what the features are made of
    ├── NotPromotedError        the gate refuses the model; the one before serves on
    └── UnknownModelError       the registry has no such model, or cannot read it
"""


class SegmentationError(Exception):
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


class TooFewCustomersError(SegmentationError):
    """There are fewer customers than a segmentation can be told from."""


class TooShortHistoryError(SegmentationError):
    """There are fewer days, or customers, than anything can be expected from."""


class BadFeaturesError(SegmentationError):
    """The answer of the API is not what the features are made of."""


class NotPromotedError(SegmentationError):
    """The gate refuses the model; the one before serves on."""


class UnknownModelError(SegmentationError):
    """The registry has no such model, or cannot read it."""
