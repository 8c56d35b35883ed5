"""One exchange with a server of OpenAI's chat completions, read as it streams and cut where it is too long."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletionChunk

from clients.planner.llm.errors import ModelUnreachable, ModelUnusable
from clients.settings import LlmSettings
from outgoing import AddressRefused, GuardedTransport, check_url, checked_addresses

_CHARACTERS_A_TOKEN = 4  # of English and JSON, about; servers count differently, and not all of them say
_MOST_REPLY_TOKENS = 2_000

Message = dict[str, Any]


class RepliesNotSupported(Exception):
    """The server does not take tools; JSON may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model asks for, with its arguments as JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model said."""

    content: str
    calls: tuple[ToolCall, ...]

    def message(self) -> Message:
        """As the conversation goes on with it."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.calls
        ]
        return {"role": "assistant", "content": self.content} | ({"tool_calls": calls} if calls else {})


@dataclass(slots=True)
class _Heard:
    """A reply while it arrives."""

    content: str = ""
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    characters: int = 0

    def hear(self, chunk: ChatCompletionChunk) -> None:
        for choice in (chunk.choices or ())[:1]:  # a server may stream anything; the SDK checks nothing
            delta = choice.delta
            self.content += delta.content or ""
            self.characters += len(delta.content or "")
            for part in delta.tool_calls or ():
                call = self.calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"] = part.id or call["id"]
                if part.function is not None:
                    call["name"] += part.function.name or ""
                    call["arguments"] += part.function.arguments or ""
                    self.characters += len(part.function.arguments or "") + len(part.function.name or "")


class Exchange:
    """Talks to one model and keeps count of the tokens; a redirect is not followed, and nothing is tried again."""

    def __init__(self, client: AsyncOpenAI, settings: LlmSettings) -> None:
        self._client = client
        self._model = settings.model or ""
        self._tokens_left = settings.max_tokens

    async def say(self, messages: list[Message], *, extra: Mapping[str, Any]) -> Reply:
        """The reply to the conversation so far.

        Raises
        ------
        RepliesNotSupported
            The server refuses the kind of request.
        ModelUnreachable, ModelUnusable
            It failed, or the tokens are spent.
        """
        self._spend(sum(len(str(message)) for message in messages) + len(str(extra)))
        allowed = min(self._tokens_left, _MOST_REPLY_TOKENS)
        heard = _Heard()
        async with aclosing(self._chunks(messages, extra, allowed)) as chunks:
            async for chunk in chunks:
                heard.hear(chunk)
                if heard.characters > allowed * _CHARACTERS_A_TOKEN:
                    raise ModelUnusable("the reply is longer than it may be")
        self._spend(heard.characters)
        calls = tuple(ToolCall(**heard.calls[index]) for index in sorted(heard.calls))
        return Reply(content=heard.content, calls=calls)

    async def _chunks(
        self, messages: Iterable[Message], extra: Mapping[str, Any], allowed: int
    ) -> AsyncGenerator[ChatCompletionChunk]:
        create: Any = self._client.chat.completions.create  # Any: messages and tools are plain JSON
        try:
            stream: AsyncStream[ChatCompletionChunk] = await create(
                model=self._model, messages=messages, stream=True, max_completion_tokens=allowed, temperature=0, **extra
            )
            async with stream:
                async for chunk in stream:
                    yield chunk
        except (openai.BadRequestError, openai.UnprocessableEntityError, openai.NotFoundError) as error:
            raise RepliesNotSupported from error
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise ModelUnreachable(type(error).__name__) from error
        except (ValueError, TypeError, AttributeError) as error:  # what is streamed is no chunk of a completion
            raise ModelUnusable("what the server streams is no completion") from error

    def _spend(self, characters: int) -> None:
        self._tokens_left -= characters // _CHARACTERS_A_TOKEN
        if self._tokens_left <= 0:
            raise ModelUnusable("the tokens of this plan are spent")


@asynccontextmanager
async def exchange(settings: LlmSettings) -> AsyncIterator[Exchange]:
    """An exchange for the length of the block; raises what `model_client` does."""
    async with model_client(settings) as client:
        yield Exchange(client, settings)


@asynccontextmanager
async def model_client(settings: LlmSettings) -> AsyncIterator[AsyncOpenAI]:
    """A client of the model's server for the length of the block, that goes nowhere else.

    Raises
    ------
    AddressRefused
        The settings lead to where no model may be.
    ModelUnreachable
        Its name is unknown.
    """
    hosts, key = settings.internal_hosts, settings.api_key.get_secret_value() if settings.api_key else "none"
    check_url(settings.base_url, internal_hosts=hosts)
    try:
        # Before the SDK does, whose errors say nothing of why.
        await checked_addresses(httpx2.URL(settings.base_url), internal_hosts=hosts)
    except AddressRefused:
        raise
    except httpx2.TransportError as error:
        raise ModelUnreachable(str(error)) from error
    guarded = GuardedTransport(hosts)
    async with (
        DefaultAsyncHttpxClient(transport=guarded, follow_redirects=False, timeout=settings.timeout_s) as http,
        AsyncOpenAI(api_key=key, base_url=settings.base_url, max_retries=0, http_client=http) as client,
    ):
        yield client
