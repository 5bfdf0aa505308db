"""OptiLLM's model-name grammar: `moa-jerry-xl` is the strategy `moa` on the base model `jerry-xl`."""

from __future__ import annotations

import re

#: server.py of OptiLLM 0.3.12, `known_approaches`.
BUILT_IN = (
    "none", "mcts", "bon", "moa", "rto", "z3", "self_consistency", "pvg", "rstar",
    "cot_reflection", "plansearch", "leap", "re2", "cepo", "mars",
)  # fmt: skip
#: The SLUG of every plugin that the wheel of OptiLLM 0.3.12 carries.
PLUGINS = (
    "coc", "deep_research", "deepthink", "executecode", "genselect", "json", "longcepo", "majority_voting",
    "mcp", "memory", "privacy", "proxy", "readurls", "router", "spl", "web_search",
)  # fmt: skip
#: Words that OptiLLM takes off the front of a model name.
WORDS = frozenset(BUILT_IN) | frozenset(PLUGINS)
#: Words that are no strategy one can ask for: one does nothing, one is the way out.
NOT_STRATEGIES = frozenset({"none", "proxy"})
#: Strategies that execute what a model wrote, or reach beyond the upstream.
DANGEROUS = frozenset({"z3", "executecode", "coc", "mcp", "readurls", "web_search", "deep_research", "memory"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_]*")


def is_slug(word: str) -> bool:
    """Whether a word could be a strategy's name at all."""
    return bool(_SLUG.fullmatch(word))


def is_name(text: str) -> bool:
    """Whether a text can be a model's name at all."""
    return bool(_NAME.fullmatch(text))


def base_model_problem(name: str) -> str | None:
    """Why OptiLLM would not pass this base model's name on as it is, or None."""
    for sign, meaning in (("&", "runs strategies one after the other"), ("|", "runs strategies side by side")):
        if sign in name:
            return f"holds {sign!r}, with which OptiLLM {meaning}"
    if not _NAME.fullmatch(name):
        return "is not a model name (letters, digits and . _ : / @ + -, beginning with a letter or digit)"
    if name == "auto":
        return "is a word of OptiLLM's own"
    first = name.split("-", 1)[0]
    if first in WORDS:
        return f"begins with {first!r}, which OptiLLM takes for a strategy and cuts off"
    return None


def split(model: str, strategies: tuple[str, ...], base_models: tuple[str, ...]) -> tuple[str, str] | None:
    """`moa-jerry-xl` -> ("moa", "jerry-xl") for an enabled strategy and a known base model, else None."""
    for base_model in base_models:
        strategy = model.removesuffix(f"-{base_model}")
        if strategy != model and strategy in strategies:
            return strategy, base_model
    return None
