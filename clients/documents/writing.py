"""An answer written by a language model out of passages; whatever it cannot quote, it has not found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clients.documents.reply import DocumentReply, Passage
from clients.literal import without_links
from clients.planner.llm.errors import ModelFailed
from clients.planner.llm.in_time import in_time
from clients.settings import LlmSettings

_MOST_TEXT = 2_000  # characters
_GRACE_S = 1.0  # past the time-out, for the loop to end


class Writer(Protocol):
    """Writes an answer."""

    def write(self, question: str, passages: Sequence[Passage]) -> DocumentReply | None:
        """The answer; None where there is none that its quotes bear out."""
        ...


class _Quote(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    passage: int
    quote: str


class _Written(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    found: bool
    answer: str = ""
    quotes: list[_Quote] = Field(default_factory=list, max_length=10)


def chosen_writer() -> Writer | None:
    """The writer that the settings name; None without a language model."""
    settings = LlmSettings()
    return ModelWriter(settings) if settings.is_set_up else None


class ModelWriter:
    """Asks a language model, and keeps of its answer what the passages bear out.

    The model is given passages and no tools: what a document tells it to do, it cannot do.

    Raises
    ------
    AddressRefused
        When used: the address leads to where it may not.
    """

    def __init__(self, settings: LlmSettings) -> None:
        self._settings = settings

    def write(self, question: str, passages: Sequence[Passage]) -> DocumentReply | None:
        """The answer; None where the model fails, or cannot quote what it says."""
        try:
            content = in_time(lambda: asyncio.run(self._said(question, passages)), self._settings.timeout_s + _GRACE_S)
            written = _Written.model_validate_json(content[content.find("{") : content.rfind("}") + 1])
        except (ModelFailed, ValidationError, TimeoutError):
            return None
        if not written.found:
            return DocumentReply(
                text="That is not in the documents.", hint="Try other words.", is_found=False, is_written=True
            )
        quoted = tuple(dict.fromkeys(_borne_out(written.quotes, passages)))
        text = without_links(written.answer)[:_MOST_TEXT]
        return DocumentReply(text=text, passages=quoted, is_found=True, is_written=True) if quoted and text else None

    async def _said(self, question: str, passages: Sequence[Passage]) -> str:
        from clients.planner.llm.exchange import RepliesNotSupported, exchange

        given = [{"passage": number, "text": passage.text} for number, passage in enumerate(passages, 1)]
        prompt = json.dumps({"question": question, "passages": given}, ensure_ascii=False)
        messages = [{"role": "system", "content": _prompt()}, {"role": "user", "content": prompt}]
        async with asyncio.timeout(self._settings.timeout_s):
            async with exchange(self._settings) as made:
                try:
                    reply = await made.say(messages, extra={"response_format": {"type": "json_object"}})
                except RepliesNotSupported:
                    reply = await made.say(messages, extra={})
        return reply.content


def _borne_out(quotes: Sequence[_Quote], passages: Sequence[Passage]) -> list[Passage]:
    """The quotes that stand in their passage word for word, cited by its document and page."""
    return [
        Passage(document=passages[quote.passage - 1].document, page=passages[quote.passage - 1].page, text=text)
        for quote in quotes
        if 0 < quote.passage <= len(passages)
        and (text := " ".join(quote.quote.split()))
        and text in passages[quote.passage - 1].text
    ]


@cache
def _prompt() -> str:
    return files("clients.documents").joinpath("prompts", "answer.md").read_text(encoding="utf-8")
