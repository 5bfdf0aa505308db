"""OptiLLM's model-name grammar: `moa-jerry-xl` is the strategy `moa` on the base model `jerry-xl`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal

#: server.py of OptiLLM 0.3.12, `known_approaches`.
BUILT_IN = (
    "none",
    "mcts",
    "bon",
    "moa",
    "rto",
    "z3",
    "self_consistency",
    "pvg",
    "rstar",
    "cot_reflection",
    "plansearch",
    "leap",
    "re2",
    "cepo",
    "mars",
)
#: The SLUG of every plugin that the wheel of OptiLLM 0.3.12 carries.
PLUGINS = (
    "coc",
    "deep_research",
    "deepthink",
    "executecode",
    "genselect",
    "json",
    "longcepo",
    "majority_voting",
    "mcp",
    "memory",
    "privacy",
    "proxy",
    "readurls",
    "router",
    "spl",
    "web_search",
)
#: Words that OptiLLM takes off the front of a model name.
WORDS = frozenset(BUILT_IN) | frozenset(PLUGINS)
#: Words that are no strategy one can ask for: one does nothing, one is the way out.
NOT_STRATEGIES = frozenset({"none", "proxy"})
#: Strategies that act on what a model wrote, or on what a prompt says, and what each does: they need a permission.
CODE_EXECUTION = {
    "z3": "runs Python code that the model wrote",
    "executecode": "runs Python code that the model wrote",
    "coc": "runs Python code that the model wrote",
    "mcp": "starts programs and calls the tools that the model chooses",
    "readurls": "opens the addresses that a prompt names",
    "web_search": "drives a browser with what the model wrote",
    "deep_research": "drives a browser with what the model wrote",
}

#: Signs that join strategies in front of a model's name.
_OPERATORS = {"&": "runs strategies one after the other", "|": "runs strategies side by side"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_]*")


def is_slug(word: str) -> bool:
    """Whether a word could be a strategy's name at all."""
    return bool(_SLUG.fullmatch(word))


def code_execution(strategies: Iterable[str]) -> dict[str, str]:
    """Those of CODE_EXECUTION among these strategies, also as parts of joined ones (`moa&z3`), and what each does."""
    parts = [part for strategy in strategies for part in re.split(r"[&|-]", strategy)]
    return {part: CODE_EXECUTION[part] for part in parts if part in CODE_EXECUTION}


def is_name(text: str) -> bool:
    """Whether a text can be a model's name at all."""
    return bool(_NAME.fullmatch(text))


def base_model_problem(name: str, words: Collection[str] = WORDS) -> str | None:
    """Why OptiLLM would not pass this base model's name on as it is, or None. `words` are those that it cuts off."""
    for sign, meaning in _OPERATORS.items():
        if sign in name:
            return f"holds {sign!r}, with which OptiLLM {meaning}"
    if not _NAME.fullmatch(name):
        return "is not a model name (letters, digits and . _ : / @ + -, beginning with a letter or digit)"
    if name == "auto":
        return "is a word of OptiLLM's own"
    first, dash, rest = name.partition("-")
    if first in words:
        what = "cuts off" if rest else "cuts off, and nothing would be left"
        return f"begins with {first!r}, which OptiLLM takes for a strategy and {what}"
    if dash and first.lower() in words:
        return f"begins with {first!r}, which reads like the strategy {first.lower()!r}; OptiLLM knows it in lower case only"
    return None


def split(
    model: str, strategies: tuple[str, ...], base_models: tuple[str, ...]
) -> tuple[str, str] | None:
    """`moa-jerry-xl` -> ("moa", "jerry-xl") for an enabled strategy and a known base model, else None."""
    for base_model in base_models:
        strategy = model.removesuffix(f"-{base_model}")
        if strategy != model and strategy in strategies:
            return strategy, base_model
    return None


def parse(model: str, words: Collection[str] = WORDS) -> tuple[list[str], str]:
    """The strategies and the base model that OptiLLM reads in a name: it takes every leading word off.

    ([], name) for a name without any. The base model may be empty.
    """
    if model == "auto":
        return [], model
    parts = model.split("-")
    strategies: list[str] = []
    while parts:
        sign = next((sign for sign in _OPERATORS if sign in parts[0]), None)
        if parts[0] in words:
            strategies.append(parts.pop(0))
        elif sign:
            strategies += parts.pop(0).split(sign)
        else:
            break
    return strategies, "-".join(parts)


def refusal(
    model: str, strategies: tuple[str, ...], base_models: tuple[str, ...]
) -> tuple[Literal["prefix", "strategy", "base model"], str] | None:
    """What is wrong with a name that arrives at OptiLLM's door, and the reason in words; None for a good one."""
    if split(model, strategies, base_models):
        return None
    words = WORDS.union(strategies)
    first, _, rest = model.partition("-")
    known = max((b for b in base_models if model.endswith(f"-{b}")), key=len, default=None)
    if any(sign in first for sign in _OPERATORS):
        return "strategy", f"{first!r} joins strategies, which is not enabled"
    if first not in words:
        if first.lower() in words:
            return "prefix", f"{first!r} is no strategy: OptiLLM knows its words in lower case only"
        return "prefix", "it has no strategy prefix"
    prefix = model.removesuffix(f"-{known}") if known else first
    if prefix not in strategies:
        return "strategy", f"{prefix!r} is not an enabled strategy"
    if not rest:
        return "base model", "no base model follows the strategy"
    problem = base_model_problem(rest, words)
    return "base model", f"the base model {rest!r} {problem or 'is not among base_models'}"
