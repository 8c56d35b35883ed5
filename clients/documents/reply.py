"""What comes of a question about documents."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of one page, as it stands there.

    Attributes
    ----------
    page
        Counted from 1, as readers of PDFs count.
    """

    document: str
    page: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReply:
    """The reply, and the passages that it rests on; none where the documents do not say.

    Attributes
    ----------
    is_found
        Whether the documents answer the question.
    is_written
        Whether a language model wrote the text; otherwise the passages are the answer.
    """

    text: str
    passages: tuple[Passage, ...] = ()
    is_found: bool
    is_written: bool = False
    hint: str = ""
