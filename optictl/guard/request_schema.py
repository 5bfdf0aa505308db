"""Validate the body of a client's request, and reduce it to what a strategy uses. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from . import carried
from .responses import Refused

#: OptiLLM's pattern for a strategy in a message. Source: extract_optillm_approach in server.py.
_TAG = re.compile(r"<optillm_approach>(.*?)</optillm_approach>")
_OPENING = "<optillm_approach>"
#: OptiLLM's field for a strategy in a body.
_FIELD = "optillm_approach"
_MAX_TAGS = 16
_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
#: The largest `n` of OpenAI's API. Here, each answer is a run of the strategy.
_MAX_N = 128
#: More names would make a header that some clients refuse.
_MAX_DROPPED = 32
#: The fields that every strategy uses. The guard drops all others and lists them in a header.
_HONOURED = {
    "model",
    "messages",
    "stream",
    "stream_options",
    "n",
    "max_tokens",
    "max_completion_tokens",
    *carried.FIELDS,
}


@dataclass(frozen=True)
class Body:
    """A valid request. `choice`: the strategy that the body requests, or None.

    `dropped`: the fields that the guard ignores.
    """

    model: str
    messages: list[dict[str, str]]
    n: int
    limits: dict[str, int]
    stream: bool
    include_usage: bool
    choice: str | None
    dropped: list[str]

    def token_limits(self) -> dict[str, int]:
        """The token limits for a strategy. Strategies read `max_tokens` only."""
        limits = dict(self.limits)
        if "max_completion_tokens" in limits:
            limits["max_tokens"] = limits["max_completion_tokens"]
        return limits


def _bad(message: str, code: str = "invalid_request", param: str | None = None) -> Refused:
    return Refused(400, code, message, param=param)


def load(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        Refused: 400, the body is not a JSON object.
    """
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        raise _bad("the body is not valid JSON", "invalid_json") from None
    if not isinstance(data, dict):
        raise _bad("the body must be a JSON object")
    return data


def _content(message: dict[str, Any], where: str, dropped: set[str]) -> str:
    content = message.get("content")
    param = f"{where}.content"
    if content is None and message.get("role") in ("assistant", "tool", "function"):
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _bad(f"{param} must be text or a list of parts", param=param)
    texts = []
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise _bad(f"{param} has a part that is not an object with a type", param=param)
        if part["type"] == "text":
            if not isinstance(part.get("text"), str):
                raise _bad(f"{param} has a text part without text", param=param)
            texts.append(part["text"])
        else:
            dropped.add("images" if part["type"] in ("image_url", "input_image") else part["type"])
    return " ".join(texts)


def _without_tags(text: str, choices: list[str]) -> str:
    # repeat until none is left: removing one tag may join the halves of another. Both the rounds
    # and the opening tags are limited: a search from 200 000 opening tags would hold the GIL for
    # minutes
    for _ in range(_MAX_TAGS):
        if text.count(_OPENING) > _MAX_TAGS:
            break
        match = _TAG.search(text)
        if match is None:
            return text
        choices.append(match.group(1))
        text = (text[: match.start()] + text[match.end() :]).strip()
    raise _bad(f"a message has more than {_MAX_TAGS} {_OPENING} tags", "strategy_not_enabled")


def _messages(
    data: dict[str, Any], dropped: set[str], choices: list[str] | None
) -> list[dict[str, str]]:
    """The messages as text. `choices`: gets those that tags choose. None: tags are text."""
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad("messages must be a list with at least one message", param="messages")
    system: list[str] = []
    turns: list[dict[str, str]] = []
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, dict):
            raise _bad(f"{where} must be an object", param=where)
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise _bad(f"{where}.role must be one of {', '.join(sorted(_ROLES))}", param=where)
        if role in ("tool", "function") or message.get("tool_calls"):
            dropped.add("tools")
        text = _content(message, where, dropped)
        if choices is not None:
            text = _without_tags(text, choices)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _bad(f"{where}.content has half of a surrogate pair", param=where) from None
        if role in ("system", "developer"):
            system.append(text)
        elif role in ("user", "assistant"):
            turns.append({"role": role, "content": text})
    return _conversation(system, turns, dropped)


def _conversation(
    system: list[str], turns: list[dict[str, str]], dropped: set[str]
) -> list[dict[str, str]]:
    # OptiLLM uses only the last system message: join them
    instructions = "\n\n".join(filter(None, system))
    if not any(turn["content"].strip() for turn in turns):
        if not instructions.strip():
            raise _bad("messages must contain a user message with text", param="messages")
        # OpenAI's API answers to instructions alone. A strategy needs a question: they are one
        return [{"role": "user", "content": instructions}]
    if len(turns) > 1:
        dropped.add("turns")  # OptiLLM joins a conversation into one text
    return ([{"role": "system", "content": instructions}] if system else []) + turns


def _count(data: dict[str, Any], name: str, most: int) -> int | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        # 1.0 too: OpenAI's API takes no number with a point where it expects an integer
        raise _bad(f"{name} must be a whole number from 1 to {most}", param=name)
    return value


def parse(data: dict[str, Any], *, prompt_chooses: bool = False) -> Body:
    """Validate the JSON object of a request.

    `prompt_chooses`: tags in messages and the field `optillm_approach` choose the strategy. If not,
    a tag is text, and the field is dropped like any other that OptiLLM's strategies do not use.

    Raises:
        Refused: 400, with the field and its expected value.
    """
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise _bad("model must be a strategy and a base model, as in moa-jerry-xl", param="model")
    stream = data.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise _bad("stream must be true or false", param="stream")
    options = data.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise _bad("stream_options must be an object", param="stream_options")
    if wrong := carried.wrong_field(data):
        raise _bad(f"{wrong[0]} must be {wrong[1]}", param=wrong[0])
    dropped = {key for key, value in data.items() if key not in _HONOURED and value is not None}
    choices: list[str] | None = [] if prompt_chooses else None
    messages = _messages(data, dropped, choices)
    if choices is not None:
        dropped.discard(_FIELD)
        choices += _asked(data)
    if len(set(choices or ())) > 1:
        raise _bad("the request names several strategies", "strategy_not_enabled")
    limits = {
        name: _count(data, name, 2**31 - 1) for name in ("max_tokens", "max_completion_tokens")
    }
    return Body(
        model=model,
        messages=messages,
        n=_count(data, "n", _MAX_N) or 1,
        limits={name: value for name, value in limits.items() if value is not None},
        stream=bool(stream),
        include_usage=bool((options or {}).get("include_usage")),
        choice=choices[0] if choices else None,
        dropped=sorted(map(_header_safe, dropped))[:_MAX_DROPPED],
    )


def _asked(data: dict[str, Any]) -> list[str]:
    """The strategy in the body, if there is one."""
    asked = data.get(_FIELD)
    if asked is not None and not isinstance(asked, str):
        raise _bad(f"{_FIELD} must be text", param=_FIELD)
    return [asked] if asked else []


def _header_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:40] or "?"
