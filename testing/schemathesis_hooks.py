"""Hooks of schemathesis: what JSON Schema cannot say about the guard's endpoints.

It runs in the environment of schemathesis, without this project.
"""

from __future__ import annotations

from typing import Any

import schemathesis  # type: ignore[import-not-found]

_COUNTS = ("n", "max_tokens", "max_completion_tokens", "seed", "top_k")


@schemathesis.hook  # type: ignore[untyped-decorator]
def filter_body(_context: Any, body: Any) -> bool:
    """Whether to send a body.

    For JSON Schema, 1.0 is an integer; for OpenAI's API it is none. The names of options depend on
    the strategy.
    """
    if not isinstance(body, dict):
        return True
    is_whole = not any(isinstance(body.get(name), float) for name in _COUNTS)
    return is_whole and not body.get("strategy_options")
