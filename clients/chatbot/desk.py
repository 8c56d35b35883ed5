"""All that one signed-in user has before them; everything the pages can do, without a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clients.chatbot.analyst import Analyst
from clients.chatbot.both import answered_from_both
from clients.chatbot.caller import owner_of
from clients.chatbot.conversation import CombinedReply, Conversation, DataReply, Outcome, Reply, Topic, Turn
from clients.chatbot.history import History
from clients.chatbot.suggestions import suggested_questions
from clients.chatbot.understood import Chip, without
from clients.documents.library import Library
from clients.planner.wording import sentence
from clients.sdk import Client, Retries

# A person is waiting: one retry, and then they are told.
_RETRIES = Retries(count=1, longest_s=2.0)


class Desk:
    """A user's analyst, library and conversations; one conversation on each topic lies open.

    Raises
    ------
    ApiError
        When made: the service cannot be reached, or does not know the credential.
    """

    def __init__(self, url: str, *, credential: str | None, folder: Path) -> None:
        self.url = url
        self._client = Client(url, key=credential, retries=_RETRIES)
        try:
            self.analyst = Analyst(self._client)
        except BaseException:
            self._client.close()
            raise
        own = folder / owner_of(url, credential)
        self.history = History(own)
        self.library = Library(own)
        self.open = {topic: Conversation(topic=topic) for topic in Topic}

    def close(self) -> None:
        """Let go of the connections to the service."""
        self._client.close()

    @cached_property
    def suggestions(self) -> tuple[str, ...]:
        """Questions to begin with."""
        return suggested_questions(self.analyst.snapshot)

    def ask(self, topic: Topic, question: str) -> Conversation:
        """The open conversation with the question and its reply."""
        conversation = self.open[topic]
        reply: Reply
        if topic is Topic.DATA:
            reply = self.analyst.answer([*conversation.asked_figures, question])
            both = (
                None if reply.outcome is Outcome.ANSWERED else answered_from_both(question, self.analyst, self.library)
            )
        else:
            both = answered_from_both(question, self.analyst, self.library, is_about_documents=True)
            reply = both or self.library.answer(question, before=conversation.questions)
        return self._kept(conversation.said(Turn(question=question, reply=both or reply)))

    def take_away(self, position: int, *chips: Chip) -> Conversation:
        """The open conversation on data, going on with the request of that turn less these pieces."""
        reply = self.open[Topic.DATA].turns[position].reply
        reply = reply.figure if isinstance(reply, CombinedReply) else reply
        request = without(reply.request, chips) if isinstance(reply, DataReply) and reply.request else None
        return self.open[Topic.DATA] if request is None else self.ask_request(request)

    def ask_request(self, request: Mapping[str, Any]) -> Conversation:
        """The open conversation on data, going on with a request; its sentence is what was asked."""
        question = sentence(request, self.analyst.snapshot)
        return self._kept(self.open[Topic.DATA].said(Turn(question=question, reply=self.analyst.run(request))))

    def begin(self, topic: Topic) -> Conversation:
        """A new conversation, which lies open."""
        self.open[topic] = Conversation(topic=topic)
        return self.open[topic]

    def reopen(self, id_: str) -> Conversation | None:
        """The kept conversation, which lies open then, its answers asked for anew; None if it is gone."""
        if (kept := self.history.open(id_)) is None:
            return None
        self.open[kept.topic] = kept
        for position in range(len(kept.turns)):
            self.answer_anew(kept.topic, position)
        return self.open[kept.topic]

    def rename(self, id_: str, name: str) -> None:
        """Call the conversation that."""
        self.history.rename(id_, name)
        for topic, conversation in self.open.items():
            if conversation.id == id_:
                self.open[topic] = replace(conversation, name=name)

    def delete(self, id_: str) -> None:
        """Forget the conversation; if it lies open, a new one does."""
        self.history.delete(id_)
        for topic, conversation in self.open.items():
            if conversation.id == id_:
                self.begin(topic)

    def delete_document(self, name: str) -> None:
        """Forget the document, and the passages of it in replies that lie open."""
        self.library.delete(name)
        for topic, conversation in self.open.items():
            for position, turn in enumerate(conversation.turns):
                if topic is Topic.DOCUMENTS or isinstance(turn.reply, CombinedReply):
                    self.answer_anew(topic, position)

    def answer_anew(self, topic: Topic, position: int) -> None:
        """Answer a turn of the open conversation once more, with the rights and data of now."""
        conversation = self.open[topic]
        turn = conversation.turns[position]
        if isinstance(turn.reply, CombinedReply):
            figure = replace(self.analyst.run(turn.reply.figure.request or {}), planned_by=turn.reply.figure.planned_by)
            statement = self.library.answer(turn.reply.asked_statement)
            both = replace(turn.reply, figure=figure, statement=statement)
            self.open[topic] = conversation.answered(position, both)
        elif topic is Topic.DOCUMENTS:
            before = conversation.questions[:position]
            self.open[topic] = conversation.answered(position, self.library.answer(turn.question, before=before))
        elif isinstance(turn.reply, DataReply) and turn.reply.request is not None:
            reply = replace(self.analyst.run(turn.reply.request), planned_by=turn.reply.planned_by)
            self.open[topic] = conversation.answered(position, reply)

    def _kept(self, conversation: Conversation) -> Conversation:
        self.open[conversation.topic] = conversation
        self.history.save(conversation)
        return conversation
