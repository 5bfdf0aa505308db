"""Validate the body of a client's request, and reduce it to what a strategy uses. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from . import carried, conversation, parameters, strategy_options
from .conversation import Message
from .responses import Refused

#: OptiLLM's pattern for a strategy in a message. Source: extract_optillm_approach in server.py.
_TAG = re.compile(r"<optillm_approach>(.*?)</optillm_approach>")
_OPENING = "<optillm_approach>"
#: OptiLLM's field for a strategy in a body.
_FIELD = "optillm_approach"
#: The field with the strategy's own options.
_OPTIONS = "strategy_options"
_MAX_TAGS = 16
_ROLES = {"system", "developer", "user", "assistant", "tool", "function"}
#: The largest `n` of OpenAI's API. Here, each answer is a run of the strategy.
_MAX_N = 128
#: More names would make a header that some clients refuse.
_MAX_DROPPED = 32
#: The fields that every strategy uses, besides those of `parameters`. The guard drops all others
#: and lists them in a header.
_HONOURED = {
    *parameters.NAMES,
    _OPTIONS,
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

    `messages`: the client's, without what no upstream gets. `given`: the parameters. `options`: the
    strategy's options as the client sent them. `dropped`: the fields that the guard ignores.
    """

    model: str
    messages: list[Message]
    n: int
    limits: dict[str, int]
    stream: bool
    include_usage: bool
    choice: str | None
    dropped: list[str]
    given: dict[str, Any] = field(default_factory=dict)
    options: Any = None

    def token_limits(self) -> dict[str, int]:
        """The token limits for a strategy. Strategies read `max_tokens` only."""
        limits = dict(self.limits)
        if "max_completion_tokens" in limits:
            limits["max_tokens"] = limits["max_completion_tokens"]
        return limits


def _bad(message: str, code: str = "invalid_request", param: str | None = None) -> Refused:
    return Refused(400, code, message, param=param)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def load(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        Refused: 400, the body is not a JSON object.
    """
    try:
        data = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _bad("the body is not valid JSON", "invalid_json") from None
    if not isinstance(data, dict):
        raise _bad("the body must be a JSON object")
    return data


def _content(message: dict[str, Any], where: str, dropped: set[str]) -> Any:
    """The content of a message: text, or parts if it has more than text. None without any."""
    content = message.get("content")
    param = f"{where}.content"
    if isinstance(content, str):
        return content
    if content is None and message.get("role") in ("assistant", "tool", "function"):
        return None
    if not isinstance(content, list):
        raise _bad(f"{param} must be text or a list of parts", param=param)
    parts = []
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise _bad(f"{param} has a part that is not an object with a type", param=param)
        kind = part["type"]
        if kind in ("text", "refusal") and not isinstance(part.get(kind), str):
            raise _bad(f"{param} has a {kind} part without {kind}", param=param)
        if kind == "image_url" and not _is_image(part.get(kind)):
            raise _bad(f"{param} has an image_url part without image_url.url", param=param)
        if kind in ("text", "refusal", "image_url"):
            parts.append(part)
        else:
            dropped.add(kind)
    is_text = all(part["type"] == "text" and len(part) == len(("type", "text")) for part in parts)
    return conversation.text_of(parts) if is_text else parts


def _is_image(value: Any) -> bool:
    url = value.get("url") if isinstance(value, dict) else value
    return isinstance(url, str) and bool(url)


def _message(message: Any, where: str, dropped: set[str]) -> Message:
    """A message as it may go upstream."""
    if not isinstance(message, dict):
        raise _bad(f"{where} must be an object", param=where)
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _bad(f"{where}.role must be one of {', '.join(sorted(_ROLES))}", param=where)
    for name in ("name", "tool_call_id", "refusal"):
        if not isinstance(message.get(name), str | None):
            raise _bad(f"{where}.{name} must be text", param=f"{where}.{name}")
    calls = message.get("tool_calls")
    if calls is not None and not (
        isinstance(calls, list) and all(isinstance(call, dict) for call in calls)
    ):
        raise _bad(f"{where}.tool_calls must be a list of objects", param=f"{where}.tool_calls")
    content = _content(message, where, dropped)
    if content is None and not calls:
        content = ""
    kept = {name: value for name, value in message.items() if value is not None}
    if not calls:
        kept.pop("tool_calls", None)
    whole = {**kept, "content": content}
    _check_text(whole, where)
    return whole


def _check_text(value: Any, where: str) -> None:
    """Whether a value can be sent on."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _bad(f"{where} has half of a surrogate pair", param=where) from None
    except RecursionError:
        raise _bad(f"{where} is nested too deep", param=where) from None


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


def _untagged(content: Any, choices: list[str]) -> Any:
    """A content without the tags that choose a strategy."""
    if isinstance(content, str):
        return _without_tags(content, choices)
    return content and [
        {**part, "text": _without_tags(part["text"], choices)} if part["type"] == "text" else part
        for part in content
    ]


def _messages(data: dict[str, Any], dropped: set[str], choices: list[str] | None) -> list[Message]:
    """The messages. `choices`: gets those that tags choose. None: tags are text."""
    given = data.get("messages")
    if not isinstance(given, list) or not given:
        raise _bad("messages must be a list with at least one message", param="messages")
    messages = []
    for index, one in enumerate(given):
        message = _message(one, f"messages[{index}]", dropped)
        if choices is not None:
            message["content"] = _untagged(message["content"], choices)
        messages.append(message)
    turns = [message for message in messages if message["role"] not in conversation.INSTRUCTING]
    if any(map(_says, turns)):
        return messages
    instructions = conversation.of(messages).system
    if not instructions.strip():
        raise _bad("messages must contain a user message with text", param="messages")
    # OpenAI's API answers to instructions alone. A strategy needs a question: they are one
    return [{"role": "user", "content": instructions}]


def _says(turn: Message) -> bool:
    """Whether there is something in a turn that asks for an answer."""
    if turn["role"] not in ("user", "assistant"):
        return False
    content = turn["content"]
    has_text = bool(conversation.text_of(content).strip() or conversation.images_of(content))
    return has_text or bool(turn.get("tool_calls"))


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
    given = {name: data[name] for name in parameters.NAMES if data.get(name) is not None}
    if problem := parameters.problem(given):
        raise _bad(problem.message, param=problem.param)
    for name, value in given.items():
        _check_text(value, name)
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
        dropped=_listed(dropped),
        given=given,
        options=data.get(_OPTIONS),
    )


def for_strategy(
    body: Body, strategy: str, allowed: strategy_options.Deployment
) -> tuple[Body, parameters.Parameters, strategy_options.Chosen]:
    """The request for a strategy: with all that is dropped, its parameters and its options.

    `allowed`: the options of the deployment.

    Raises:
        Refused: 400, the strategy cannot give the form of answer that the client asks for, or an
            option is wrong.
    """
    found = parameters.of(strategy, body.given)
    if isinstance(found, parameters.Problem):
        raise _bad(found.message, "parameter_not_supported", found.param)
    options = strategy_options.chosen(strategy, body.options, allowed)
    if isinstance(options, tuple):
        name, what = options
        param = f"{_OPTIONS}.{name}" if name else _OPTIONS
        raise _bad(f"{param}: {what}", param=param)
    dropped = {*body.dropped, *found.dropped}
    if strategy in conversation.WITHOUT_SYSTEM and conversation.of(body.messages).system:
        dropped.add("system")
    return replace(body, dropped=_listed(dropped)), found, options


def _asked(data: dict[str, Any]) -> list[str]:
    """The strategy in the body, if there is one."""
    asked = data.get(_FIELD)
    if asked is not None and not isinstance(asked, str):
        raise _bad(f"{_FIELD} must be text", param=_FIELD)
    return [asked] if asked else []


def _listed(names: set[str]) -> list[str]:
    return sorted(map(_header_safe, names))[:_MAX_DROPPED]


def _header_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:40] or "?"
