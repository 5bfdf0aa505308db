"""A chat completion as strategies read it: the attributes of the SDK's type over parsed JSON.

The SDK validates each answer with pydantic, which takes most of the CPU time of a call.
"""

from __future__ import annotations

from typing import Any


def _number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


class Usage:
    """The token counts. A missing or wrong number is 0."""

    __slots__ = (
        "cached_tokens",
        "completion_tokens",
        "completion_tokens_details",
        "prompt_tokens",
        "total_tokens",
    )

    def __init__(self, data: dict[str, Any]) -> None:
        self.prompt_tokens = _number(data.get("prompt_tokens"))
        self.completion_tokens = _number(data.get("completion_tokens"))
        self.total_tokens = _number(data.get("total_tokens"))
        cached = data.get("prompt_tokens_details")
        self.cached_tokens = _number(
            cached.get("cached_tokens") if isinstance(cached, dict) else None
        )
        details = data.get("completion_tokens_details")
        self.completion_tokens_details = TokenDetails(details) if details else None

    @classmethod
    def of(cls, completion: dict[str, Any]) -> Usage:
        """The token counts in the JSON of a completion."""
        usage = completion.get("usage")
        return cls(usage if isinstance(usage, dict) else {})

    @property
    def reasoning_tokens(self) -> int:
        details = self.completion_tokens_details
        return details.reasoning_tokens if details is not None else 0


class TokenDetails:
    """`completion_tokens_details` of the token counts."""

    __slots__ = ("reasoning_tokens",)

    def __init__(self, data: Any) -> None:
        self.reasoning_tokens = _number(
            data.get("reasoning_tokens") if isinstance(data, dict) else None
        )


class Message:
    """A message of the model. Fields that are not sent are None."""

    __slots__ = ("content", "reasoning_content", "refusal", "role", "tool_calls")

    def __init__(self, data: dict[str, Any]) -> None:
        self.role = data.get("role")
        self.content = data.get("content")
        self.reasoning_content = data.get("reasoning_content")
        self.refusal = data.get("refusal")
        self.tool_calls = data.get("tool_calls")


class Choice:
    """One answer of the model."""

    __slots__ = ("finish_reason", "index", "logprobs", "message")

    def __init__(self, data: dict[str, Any]) -> None:
        self.index = data.get("index")
        self.finish_reason = data.get("finish_reason")
        self.logprobs = data.get("logprobs")
        self.message = Message(data["message"])


class Completion:
    """A chat.completion.

    Raises:
        ValueError: the JSON is no completion.
    """

    __slots__ = ("_data", "choices", "created", "id", "model", "object", "usage")

    def __init__(self, data: Any) -> None:
        try:
            self.choices = [Choice(choice) for choice in data["choices"]]
            self.usage = Usage(data.get("usage") or {})
        except (TypeError, KeyError, AttributeError):
            raise ValueError("the upstream's answer is not a chat completion") from None
        self.id = data.get("id")
        self.object = data.get("object")
        self.created = data.get("created")
        self.model = data.get("model")
        self._data = data

    def model_dump(self) -> dict[str, Any]:
        """The completion as JSON."""
        return dict(self._data)
