"""The limits of the service that cut an answer: each is a key of `optictl.yaml`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .exchanges import Exchange

#: The key of the token limit for a client that sends none.
ANSWER_TOKENS = "effect.answer_tokens"
#: Strategies that limit their texts to 4096 tokens for such a client. Others have no limit, or
#: another one. Source: the strategies of OptiLLM 0.3.12 to 0.4.0.
_STRATEGIES = frozenset(
    {
        "moa",
        "bon",
        "self_consistency",
        "plansearch",
        "rto",
        "cot_reflection",
        "leap",
        "pvg",
        "rstar",
        "mcts",
        "majority_voting",
        "genselect",
    }
)
#: Steps with a token limit that is not the one of the answer.
_OTHER_STEPS = ("critique", "rating")
#: Code of the end of a request -> the key of its limit.
_ENDS = {
    "upstream_call_limit": "limits.max_upstream_calls",
    "request_timeout": "timeouts.request",
}


def token_limits(strategy: str, sent: Mapping[str, int], answer_tokens: int) -> dict[str, int]:
    """The token limits for a strategy: those that the client sent, or the one of the service."""
    if "max_tokens" in sent or strategy not in _STRATEGIES:
        return dict(sent)
    return {**sent, "max_tokens": answer_tokens}


def has_cut(exchanges: Iterable[Exchange], answer_tokens: int) -> bool:
    """Whether the token limit of the service ended a text of a client that sent none."""
    return any(
        (one.is_truncated or one.cut)
        and one.limit == answer_tokens
        and one.step not in _OTHER_STEPS
        for one in exchanges
    )


def key_of(code: str) -> str:
    """The key of the limit at which a request ended with this code. "" for another end."""
    return _ENDS.get(code, "")
