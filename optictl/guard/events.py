"""Server-sent events of a model: a completion that comes in chunks."""

from __future__ import annotations

import json
from typing import Any, Protocol

from . import tool_calls


class Sink(Protocol):
    """Gets the parts of a text as they come. `has_text`: whether it got one."""

    has_text: bool

    def text(self, part: str) -> None:
        """A part of the text."""

    def reasoning(self, part: str) -> None:
        """A part of what the model thinks."""


class StreamedCompletion:
    """Reads the chunks of a completion with one choice. `sink`: None if no client reads along."""

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self._rest = b""
        self._head: dict[str, Any] = {}
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._logprobs: dict[str, list[Any]] = {}
        self._calls = tool_calls.Streamed()
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._error: Any = None
        self._is_done = False
        #: an empty text is not the same as none
        self._has_content = False

    @property
    def is_whole(self) -> bool:
        """Whether the end came."""
        return self._is_done or self._finish is not None or self._error is not None

    def feed(self, part: bytes) -> None:
        """Read the next bytes."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            name, _, value = line.strip().partition(b":")
            if name == b"data":
                self._read(value.strip())

    def _read(self, value: bytes) -> None:
        if value == b"[DONE]":
            self._is_done = True
            return
        try:
            chunk = json.loads(value)
        except (ValueError, RecursionError):
            return
        if not isinstance(chunk, dict):
            return
        if chunk.get("error"):
            self._error = chunk["error"]
            return
        self._head = self._head or {
            name: chunk.get(name) for name in ("id", "created", "model") if name in chunk
        }
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            # more than one was not asked for
            if isinstance(choice, dict) and not choice.get("index"):
                self._read_choice(choice)

    def _read_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        self._has_content |= isinstance(delta.get("content"), str)
        self._calls.feed(delta.get("tool_calls"))
        for name, parts in (
            ("reasoning_content", self._reasoning),
            ("refusal", self._refusal),
            ("content", self._texts),
        ):
            part = delta.get(name)
            if isinstance(part, str) and part:
                parts.append(part)
                if self._sink is not None and parts is self._texts:
                    self._sink.text(part)
                elif self._sink is not None and parts is self._reasoning:
                    self._sink.reasoning(part)
        logprobs = choice.get("logprobs")
        for name, tokens in (logprobs if isinstance(logprobs, dict) else {}).items():
            if isinstance(tokens, list):  # those of `content` and of `refusal`
                self._logprobs.setdefault(name, []).extend(tokens)
        if isinstance(choice.get("finish_reason"), str):
            self._finish = choice["finish_reason"]

    def completion(self) -> dict[str, Any]:
        """The JSON of the whole completion, or of the error that came instead."""
        if self._error is not None:
            return {"error": self._error}
        text = "".join(self._texts) if self._has_content else None
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        if self._calls.calls:
            message["tool_calls"] = self._calls.calls
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": self._finish or "stop",
        }
        if self._logprobs:
            choice["logprobs"] = self._logprobs
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            **({"usage": self._usage} if self._usage else {}),
        }
