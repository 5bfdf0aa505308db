"""The client's conversation on its way through a strategy. Pure.

A strategy of OptiLLM knows no messages: it gets two texts, the system prompt and the query. Where
one of its calls has such a text as a whole message, the client's own messages take its place, with
roles, turns, names and images. Where it quotes the query in a prompt, the images go along.

Source of the places: moa.py, bon.py, self_consistency.py, mcts.py, rto.py, pvg.py and the plugins
`majority_voting` and `genselect` of OptiLLM 0.3.12 to 0.4.0 pass the query on as a message; all
strategies but self_consistency and majority_voting quote it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: A message of OpenAI's API.
Message = dict[str, Any]

INSTRUCTING = ("system", "developer")
#: Strategies whose every call has a system prompt that they wrote. Source: rstar.py and mars/ of
#: OptiLLM 0.3.12 to 0.4.0.
WITHOUT_SYSTEM = ("rstar", "mars")
_LABELS = {
    "user": "User",
    "assistant": "Assistant",
    "tool": "Tool",
    "function": "Function",
}
#: Stands for a message that has images only, where a strategy wants a text.
_IMAGE = "[image]"


def text_of(content: Any) -> str:
    """The text of a message's content. Parts are joined without anything between them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get(part.get("type", "")) for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def images_of(content: Any) -> list[dict[str, Any]]:
    """The image parts of a message's content."""
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") == "image_url"]


@dataclass(frozen=True)
class Conversation:
    """A client's messages, and the two texts that stand for them in a strategy.

    `system` is the text of all instructions (messages with the role system or developer), `query`
    that of all others. `leading` are the instructions before the first turn; `turns` is the rest.
    """

    system: str
    query: str
    leading: tuple[Message, ...] = ()
    turns: tuple[Message, ...] = ()

    @property
    def images(self) -> list[dict[str, Any]]:
        """The image parts of all turns, in order."""
        return [image for turn in self.turns for image in images_of(turn.get("content"))]

    @property
    def has_tool_calls(self) -> bool:
        """Whether a turn calls a tool or has the result of a call."""
        return any(turn.get("tool_calls") or turn["role"] == "tool" for turn in self.turns)

    def is_whole_in(self, messages: Any) -> bool:
        """Whether a call of the strategy passes the conversation on as messages."""
        return any(map(self._is_query, messages if isinstance(messages, list) else ()))

    def in_place(self, messages: Any) -> Any:
        """The messages of a strategy's call, with those of the client where it passes them on."""
        if not isinstance(messages, list):
            return messages
        is_whole = self.is_whole_in(messages)
        found: list[Any] = []
        has_system = has_query = False
        for message in messages:
            if not has_system and self._is_system(message):
                has_system = True
                found += self.leading if is_whole else self._instructions()
            elif not has_query and self._is_query(message):
                has_query = True
                found += self.turns
            else:
                found.append(message if is_whole else self._with_images(message))
        return found

    def _instructions(self) -> list[Message]:
        later = (turn for turn in self.turns if turn["role"] in INSTRUCTING)
        return [*self.leading, *later]

    def _is_system(self, message: Any) -> bool:
        return bool(self.system) and _is(message, "system", self.system)

    def _is_query(self, message: Any) -> bool:
        return _is(message, "user", self.query)

    def _with_images(self, message: Any) -> Any:
        """A message that quotes the query gets the images, too."""
        images = self.images
        text = message.get("content") if isinstance(message, dict) else None
        if not images or not isinstance(text, str) or message.get("role") != "user":
            return message
        if not _quotes(text, self.query):
            return message
        return {**message, "content": [{"type": "text", "text": text}, *images]}


def _is(message: Any, role: str, text: str) -> bool:
    return (
        isinstance(message, dict) and message.get("role") == role and message.get("content") == text
    )


def _quotes(text: str, query: str) -> bool:
    """Whether a prompt holds the query: a query of a letter is not in every word."""
    start = text.find(query)
    while start >= 0:
        end = start + len(query)
        before, after = text[max(start - 1, 0) : start + 1], text[end - 1 : end + 1]
        if not any(re.fullmatch(r"\w\w", edge) for edge in (before, after)):
            return True
        start = text.find(query, start + 1)
    return False


def of(messages: Sequence[Message]) -> Conversation:
    """The conversation of a client's messages, which `request_schema` has checked."""
    count = next(
        (i for i, message in enumerate(messages) if message["role"] not in INSTRUCTING),
        len(messages),
    )
    instructions = (text_of(m.get("content")) for m in messages if m["role"] in INSTRUCTING)
    return Conversation(
        system="\n\n".join(filter(None, instructions)),
        query=_query(messages),
        leading=tuple(messages[:count]),
        turns=tuple(messages[count:]),
    )


def _query(messages: Iterable[Message]) -> str:
    """The text of the turns: a lone message as it is, several with their roles, as OptiLLM does."""
    turns = [message for message in messages if message["role"] in _LABELS]
    if len(turns) == 1 and turns[0]["role"] == "user":
        name = turns[0].get("name")
        return (f"{name}: " if name else "") + _said(turns[0])
    called = {
        call.get("id"): _function(call).get("name")
        for turn in turns
        for call in turn.get("tool_calls") or ()
    }
    return "\n".join(_labelled(turn, called) for turn in turns)


def _said(turn: Message) -> str:
    content = turn.get("content")
    text = text_of(content) or str(turn.get("refusal") or "")
    return text if text.strip() or not images_of(content) else _IMAGE


def _labelled(turn: Message, called: Mapping[Any, Any]) -> str:
    """A turn with its role, its name and its calls of tools."""
    name = turn.get("name") or called.get(turn.get("tool_call_id"))
    who = _LABELS[turn["role"]] + (f" ({name})" if name else "")
    calls = [tool_call(call) for call in turn.get("tool_calls") or ()]
    said = _said(turn)
    lines = [f"{who}: {said}"] if said or not calls else []
    return "\n".join([*lines, *(f"{who} called {call}" for call in calls)])


def _function(call: Any) -> Mapping[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    return function if isinstance(function, dict) else {}


def tool_call(call: Any) -> str:
    """A call of a tool as text: `get_weather({"city": "Bern"})`."""
    function = _function(call)
    return f"{function.get('name') or 'a tool'}({function.get('arguments') or ''})"
