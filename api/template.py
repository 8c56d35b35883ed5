"""Bytes that are the same each time but for a few places."""

from __future__ import annotations

from collections.abc import Sequence


class Template:
    """Made of an example in which each of these places holds a mark.

    The example comes from what writes such bytes anyway, so a template has no format of its own to keep in step.

    Parameters
    ----------
    example
        The bytes, with the marks in them.
    marks
        One for each place, in the order of the places.

    Raises
    ------
    ValueError
        A mark is not there just once, or they come in another order: somebody's value may look like a mark.
    """

    def __init__(self, example: bytes, marks: Sequence[bytes]) -> None:
        places = [example.find(mark) for mark in marks]
        if places != sorted(places) or any(example.count(mark) != 1 for mark in marks):
            raise ValueError("The marks are not what differs")
        self._format = example.replace(b"%", b"%%")
        for mark in marks:
            self._format = self._format.replace(mark, b"%b")

    def __len__(self) -> int:
        return len(self._format)

    def filled(self, *values: bytes) -> bytes:
        """The bytes with these values in the places."""
        return self._format % values
