"""Plans with a language model, whose every word is checked; without it, where it fails.

The model sees the catalog that the caller may see, may look at values and submits one plan. A wrong plan goes back
to it once, with the error. Whatever it submits passes the checks of the keyless planner, and what is shown of a query
is written from the request, not by the model.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import ValidationError

from clients.literal import without_links
from clients.planner.checks import check
from clients.planner.errors import Unanswerable
from clients.planner.keyless import KeylessPlanner
from clients.planner.llm.errors import ModelFailed, ModelUnreachable, ModelUnusable
from clients.planner.llm.exchange import Exchange, Message, RepliesNotSupported, Reply, ToolCall, exchange
from clients.planner.llm.in_time import in_time
from clients.planner.llm.replies import PlanReply, ValuesCall, plan_schema
from clients.planner.plan import Action, Mode, Plan
from clients.planner.snapshot import Snapshot
from clients.planner.wording import sentence
from clients.settings import LlmReplies, LlmSettings

_MOST_CALLS = 6
_MOST_REPAIRS = 1
_SHOWN_VALUES = 30  # of a dimension in the prompt; more are looked up
_MOST_TEXT, _MOST_CHOICES = 500, 4
_GRACE_S = 1.0  # past the time-out, for the loop to end


class LlmPlanner:
    """Plans for one caller over one publication; holds no state between conversations."""

    def __init__(self, snapshot: Snapshot, settings: LlmSettings) -> None:
        self._snapshot = snapshot
        self._settings = settings
        self._keyless = KeylessPlanner(snapshot)

    def plan(self, turns: Sequence[str], *, as_of: date | None = None) -> Plan:
        """The plan for the last of the turns; the keyless planner's, marked so, where the model makes none.

        Blocks for the time-out of the settings at most, and a second more.

        Raises
        ------
        AddressRefused
            The settings lead to where no model may be.
        """
        snapshot = replace(self._snapshot, as_of=as_of or self._snapshot.as_of)
        try:
            return self._asked(turns, snapshot)
        except ModelFailed:
            return replace(self._keyless.plan(turns, as_of=as_of), mode=Mode.FALLBACK)

    def _asked(self, turns: Sequence[str], snapshot: Snapshot) -> Plan:
        """The model's plan; a name may resolve for longer than a loop can be stopped, hence the grace."""
        return in_time(
            lambda: asyncio.run(_planned(turns, snapshot, self._settings)), self._settings.timeout_s + _GRACE_S
        )


async def _planned(turns: Sequence[str], snapshot: Snapshot, settings: LlmSettings) -> Plan:
    async with asyncio.timeout(settings.timeout_s):
        async with exchange(settings) as made:
            if settings.replies is LlmReplies.TOOLS:
                try:
                    return await _Conversation(made, snapshot, turns, LlmReplies.TOOLS).plan()
                except RepliesNotSupported:
                    pass  # asked again as JSON
            try:
                return await _Conversation(made, snapshot, turns, LlmReplies.JSON).plan()
            except RepliesNotSupported as error:
                raise ModelUnreachable("the server refuses the request") from error


class _Conversation:
    """One plan: a few rounds of looking up, submitting, correcting."""

    def __init__(self, made: Exchange, snapshot: Snapshot, turns: Sequence[str], replies: LlmReplies) -> None:
        self._exchange = made
        self._snapshot = snapshot
        self._replies = replies
        self._messages = _opening(turns, snapshot, replies)
        self._extra = _extra(snapshot, replies)
        self._calls = 0
        self._repairs = 0

    async def plan(self) -> Plan:
        """The first plan that passes the checks; raises ModelFailed where none does."""
        while True:
            reply = await self._exchange.say(self._messages, extra=self._extra)
            self._messages.append(reply.message())
            found = self._answered(reply) if reply.calls else self._submitted(reply.content)
            if isinstance(found, Plan):
                return found
            self._messages += found

    def _answered(self, reply: Reply) -> Plan | list[Message]:
        """The submitted plan, or the answers to the calls."""
        answers: list[Message] = []
        for call in reply.calls:
            self._calls += 1
            if self._calls > _MOST_CALLS:
                raise ModelUnusable("too many calls")
            found = self._called(call)
            if isinstance(found, Plan):
                return found
            answers.append({"role": "tool", "tool_call_id": call.id, "content": found})
        return answers

    def _called(self, call: ToolCall) -> Plan | str:
        match call.name:
            case "dimension_values":
                return self._values(call.arguments)
            case "submit_plan":
                found = self._submitted(call.arguments)
                return found if isinstance(found, Plan) else str(found[0]["content"])
            case _:
                return "There is no such tool."

    def _values(self, arguments: str) -> str:
        """Values of a dimension, as far as the caller may list them."""
        try:
            asked = ValuesCall.model_validate_json(arguments)
        except ValidationError:
            return "dimension_values takes a dimension, and a search if you like."
        values = self._snapshot.values.get(asked.dimension, ())
        found = [value for value in values if asked.search.casefold() in str(value).casefold()]
        return json.dumps(found[: 2 * _SHOWN_VALUES])

    def _submitted(self, content: str) -> Plan | list[Message]:
        """The plan if it passes the checks; else what is wrong with it, once."""
        try:
            return _checked(PlanReply.model_validate_json(_json_in(content)), self._snapshot)
        except ValidationError as error:
            faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()]
            wrong = "; ".join(faults[:5])
        except Unanswerable as error:
            wrong = error.message
        if self._repairs >= _MOST_REPAIRS:
            raise ModelUnusable("the corrected plan is wrong, too")
        self._repairs += 1
        return [{"role": "user", "content": _prompt("repair").format(error=wrong)}]


def _checked(reply: PlanReply, snapshot: Snapshot) -> Plan:
    if reply.request is not None:
        request = reply.request.body()
        check(request, snapshot)
        return Plan(action=Action.QUERY, request=request, message=sentence(request, snapshot), mode=Mode.LLM)
    return Plan(
        action=Action(reply.action),
        message=_plain(reply.message) or "I cannot answer that with the numbers there are.",
        choices=tuple(text for choice in reply.choices[:_MOST_CHOICES] if (text := _plain(choice))),
        mode=Mode.LLM,
    )


def _plain(text: str) -> str:
    return without_links(text)[:_MOST_TEXT]


def _json_in(content: str) -> str:
    """The JSON object in the text, which some models put in a fence or introduce."""
    first, last = content.find("{"), content.rfind("}")
    return content[first : last + 1] if 0 <= first < last else content


def _opening(turns: Sequence[str], snapshot: Snapshot, replies: LlmReplies) -> list[Message]:
    how = (
        _prompt("tools")
        if replies is LlmReplies.TOOLS
        else _prompt("json").format(schema=_dumped(plan_schema(snapshot)))
    )
    question = _prompt("question").format(
        as_of=snapshot.as_of, catalog=_dumped(_catalog(snapshot)), turns=_dumped(list(turns))
    )
    return [{"role": "system", "content": f"{_prompt('system')}\n{how}"}, {"role": "user", "content": question}]


def _extra(snapshot: Snapshot, replies: LlmReplies) -> dict[str, Any]:
    if replies is LlmReplies.JSON:
        return {"response_format": {"type": "json_object"}}
    values = {
        "type": "object",
        "properties": {
            "dimension": {"type": "string", "enum": sorted(snapshot.values)},
            "search": {"type": "string", "description": "Part of the value."},
        },
        "required": ["dimension"],
        "additionalProperties": False,
    }
    return {
        "tools": [
            _tool("dimension_values", "The values of a dimension.", values),
            _tool("submit_plan", "Submit the plan; the conversation ends.", plan_schema(snapshot)),
        ]
    }


def _tool(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _catalog(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "metrics": [
            {key: metric[key] for key in ("name", "label", "description", "unit", "synonyms")}  # type: ignore[literal-required]
            for metric in snapshot.metrics.values()
        ],
        "dimensions": [
            {
                "name": name,
                "label": dimension["label"],
                "grains": dimension["grains"],
                "synonyms": dimension["synonyms"],
                "value_synonyms": dimension["value_synonyms"],
                "values": list(snapshot.values.get(name, ()))[:_SHOWN_VALUES],
            }
            for name, dimension in snapshot.dimensions.items()
        ],
    }


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@cache
def _prompt(name: str) -> str:
    return files("clients.planner.llm").joinpath("prompts", f"{name}.md").read_text(encoding="utf-8")


__all__ = ["LlmPlanner"]
