"""Calls of tools as text. Pure.

A strategy compares, rates and passes on texts only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, MutableMapping
from typing import Any

from . import conversation

#: Begins each line of a text that stands for a call of a tool.
PREFIX = "Tool call: "


def of(message: Any) -> list[dict[str, Any]]:
    """The calls of tools in a message of the model."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def as_text(data: dict[str, Any], whole: MutableMapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A completion in which a text stands for the calls of tools of a choice.

    `whole`: gets text -> the message that it stands for.
    """
    choices = data.get("choices")
    if not isinstance(choices, list):
        return data
    return {**data, "choices": [_as_text(choice, whole) for choice in choices]}


def _as_text(choice: Any, whole: MutableMapping[str, dict[str, Any]]) -> Any:
    message = choice.get("message") if isinstance(choice, dict) else None
    calls = of(message)
    if not calls or not isinstance(message, dict):
        return choice
    lines = [PREFIX + conversation.tool_call(_in_one_form(call)) for call in calls]
    said = conversation.text_of(message.get("content")).strip()
    text = "\n".join([*lines, *([said] if said else [])])
    whole.setdefault(text, message)
    return {**choice, "message": {**message, "content": text}}


def _in_one_form(call: dict[str, Any]) -> dict[str, Any]:
    """A call whose arguments are written as in every equal call."""
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    try:
        arguments = json.dumps(json.loads(function["arguments"]), sort_keys=True)
    except (ValueError, TypeError, KeyError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def called(text: str) -> str | None:
    """What a text calls: the same for equal calls. None for a text without a call."""
    lines = [line for line in text.splitlines() if line.startswith(PREFIX)]
    return "\n".join(lines) if text.startswith(PREFIX) else None


class Streamed:
    """The calls of tools in the chunks of a stream."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}

    def feed(self, parts: Any) -> None:
        """Read the `tool_calls` of a chunk."""
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._read(part)

    def _read(self, part: dict[str, Any]) -> None:
        index = part.get("index")
        if not isinstance(index, int):  # some servers count none, and send each call at once
            index = len(self._calls)
        call = self._calls.setdefault(
            index, {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        for name in ("id", "type"):
            if isinstance(part.get(name), str) and part[name]:
                call[name] = part[name]
        function = part.get("function")
        for name in ("name", "arguments"):
            value = function.get(name) if isinstance(function, dict) else None
            if isinstance(value, str):
                call["function"][name] += value

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls so far, in order."""
        return [self._calls[index] for index in sorted(self._calls)]


def chunks(calls: Iterable[dict[str, Any]], size: int) -> Iterable[dict[str, Any]]:
    """The deltas of a stream with these calls, with at most `size` characters of arguments each."""
    for index, call in enumerate(calls):
        function = call.get("function")
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if not isinstance(arguments, str) or not isinstance(function, dict):
            yield {"tool_calls": [{**call, "index": index}]}
            continue
        first = {**function, "arguments": arguments[:size]}
        yield {"tool_calls": [{**call, "index": index, "function": first}]}
        for start in range(size, len(arguments), size):
            part = {"arguments": arguments[start : start + size]}
            yield {"tool_calls": [{"index": index, "function": part}]}
