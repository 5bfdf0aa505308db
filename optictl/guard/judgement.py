"""The codes for what kept a strategy from having its effect: level, meaning and fix of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: degraded: the result is no better than one plain call. weak: a part of the effect is lost.
Level = Literal["degraded", "weak"]


@dataclass(frozen=True)
class Code:
    """What a code means, and what helps: each a sentence without its full stop."""

    level: Level
    what: str
    fix: str


_MORE_TOKENS = "send a larger max_tokens with the request: a reasoning model needs room to think"
_OTHER_MODEL = "use a base model that follows instructions better, or another strategy"
_VARIETY = (
    "let LiteLLM pass temperature on to the model, and keep effect.caches on: a cache repeats texts"
)
_CALLS = "find the calls that failed with optictl trace, and raise the limits of the upstream"
_CRITIQUE = (
    "keep effect.budgets on and raise effect.critique_tokens in optictl.yaml, then optictl install"
)

#: Code -> what it means. Scripts may rely on the codes.
CODES: dict[str, Code] = {
    "candidates_missing": Code(
        "degraded",
        "The upstream returned fewer candidates than the strategy asked for",
        "keep effect.samples on: the service then asks for the missing ones",
    ),
    "candidates_identical": Code(
        "degraded",
        "All candidates are the same text, so there was nothing to choose from",
        _VARIETY,
    ),
    "critique_truncated": Code(
        "degraded",
        "The critique reached its token limit, and OptiLLM put a fixed sentence in its place",
        _CRITIQUE,
    ),
    "critique_empty": Code(
        "degraded",
        "The critique was empty, and OptiLLM put a fixed sentence in its place",
        _CRITIQUE,
    ),
    "final_truncated": Code(
        "degraded",
        "The final answer reached its token limit, and OptiLLM returned the first candidate",
        _MORE_TOKENS,
    ),
    "final_empty": Code(
        "degraded",
        "The final answer was empty, and OptiLLM returned the first candidate",
        _MORE_TOKENS,
    ),
    "ratings_unreadable": Code(
        "degraded",
        "No rating held a number, so the first candidate won",
        f"keep effect.ratings on; if it is, {_OTHER_MODEL}",
    ),
    "ratings_equal": Code(
        "degraded",
        "All ratings are equal, so the first candidate won",
        _OTHER_MODEL,
    ),
    "no_agreement": Code(
        "degraded",
        "No two samples agree, so the first sample won",
        "keep effect.votes on, and ask for a short final answer; free text needs another strategy",
    ),
    "samples_empty": Code(
        "degraded",
        "Too few samples held a text, so there was nothing to vote on",
        _MORE_TOKENS,
    ),
    "observations_empty": Code(
        "degraded",
        "The model made no observations, so the plan had none to build on",
        _MORE_TOKENS,
    ),
    "solution_truncated": Code(
        "degraded",
        "The solution reached its token limit, and OptiLLM put an error text in its place",
        _MORE_TOKENS,
    ),
    "reflection_missing": Code(
        "degraded",
        "The answer holds no reflection: the model did not keep to the form that was asked for",
        _OTHER_MODEL,
    ),
    "candidates_repeated": Code(
        "weak",
        "Some candidates are the same text",
        _VARIETY,
    ),
    "candidates_truncated": Code(
        "weak",
        "Some candidates reached the token limit",
        _MORE_TOKENS,
    ),
    "critique_cut": Code(
        "weak",
        "The critique reached its token limit, and was used as far as it goes",
        _CRITIQUE,
    ),
    "observations_cut": Code(
        "weak",
        "The observations reached the token limit, and were used as far as they go",
        _MORE_TOKENS,
    ),
    "solution_cut": Code(
        "weak",
        "The solution reached the token limit, and was used as far as it goes",
        _MORE_TOKENS,
    ),
    "final_cut": Code(
        "weak",
        "The final answer reached the token limit, and was returned as far as it goes",
        _MORE_TOKENS,
    ),
    "step_failed": Code(
        "weak",
        "An upstream call failed, and the strategy continued without it",
        _CALLS,
    ),
    "step_truncated": Code(
        "weak",
        "The answer to an upstream call reached the token limit",
        _MORE_TOKENS,
    ),
    "step_empty": Code(
        "weak",
        "The answer to an upstream call was empty",
        _MORE_TOKENS,
    ),
    "output_missing": Code(
        "weak",
        "The answer has no output section, so the client got the whole text",
        _OTHER_MODEL,
    ),
}
