"""Runs a strategy of OptiLLM for a request, and reads its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from . import accounting
from .completions import Completion
from .error_texts import is_error_text
from .request_schema import Body
from .upstream import Upstream


def conversation(messages: Sequence[dict[str, str]]) -> tuple[str, str]:
    """The two texts that a strategy gets: the system prompt and the conversation.

    Strategies know no messages. The form is the same as in `parse_conversation` of OptiLLM, which
    their prompts expect.
    """
    names = {"user": "User", "assistant": "Assistant"}
    system = [message["content"] for message in messages if message["role"] == "system"]
    turns = [
        f"{names[message['role']]}: {message['content']}"
        for message in messages
        if message["role"] in names
    ]
    return "\n\n".join(filter(None, system)), "\n".join(turns)


def _texts(result: Any) -> list[Any]:
    """The answers in the result of a strategy: a text, a list of texts or a completion."""
    if isinstance(result, Completion):
        result = result.model_dump()
    if isinstance(result, dict):
        try:
            return [choice["message"]["content"] for choice in result["choices"]]
        except (KeyError, TypeError):
            return []
    return list(result) if isinstance(result, list | tuple) else [result]


@dataclass(frozen=True)
class Runner:
    """The loaded OptiLLM. `server`: its module."""

    server: ModuleType
    upstream: Upstream

    def run(self, request: accounting.Request, body: Body) -> list[str] | None:
        """The answers of the strategy. None when it made no valid answer.

        Blocks for as long as the strategy takes. `n` answers are `n` runs of the strategy.
        """
        with accounting.attributed_to(request):
            texts: list[Any] = []
            is_plain = request.strategy == "none"
            for _ in range(1 if is_plain else body.n):
                texts += _texts(self._once(request, body))
        if not texts or any(not isinstance(text, str) or is_error_text(text) for text in texts):
            return None
        return texts

    def _once(self, request: accounting.Request, body: Body) -> Any:
        system, query = conversation(body.messages)
        is_built_in = request.strategy in self.server.known_approaches
        client = self.upstream.client(request, plain=is_built_in)
        result, _tokens = self.server.execute_single_approach(
            request.strategy,
            system,
            query,
            client,
            request.base_model,
            {"stream": False, "n": body.n, **body.token_limits()},
        )
        return result
