"""Hooks of schemathesis: what JSON Schema cannot say about the guard's endpoints.

It runs in the environment of schemathesis, without this project.
"""

from __future__ import annotations

from typing import Any

import schemathesis  # type: ignore[import-not-found]

_COUNTS = ("n", "max_tokens", "max_completion_tokens", "seed", "top_k", "top_logprobs")


@schemathesis.hook  # type: ignore[untyped-decorator]
def filter_body(_context: Any, body: Any) -> bool:
    """Whether to send a body. For JSON Schema, 1.0 is an integer; for OpenAI's API it is none."""
    return not (isinstance(body, dict) and any(isinstance(body.get(n), float) for n in _COUNTS))
