"""OptiLLM's grammar of model names: `moa-jerry-xl` is strategy `moa` on base model `jerry-xl`.

Source: `parse_combined_approach` in server.py of OptiLLM 0.3.12. The words of a release are read
from the release (see `fingerprints.words`); those here count where there is none. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal

from optictl.deployment.version_order import version_order
from optictl.guard.invariants import NOT_OFFERED

#: `known_approaches` in server.py of OptiLLM 0.3.12.
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
#: The SLUG of every plugin in the wheel of OptiLLM 0.3.12.
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
#: Words that OptiLLM removes from the front of a model name.
WORDS = frozenset(BUILT_IN) | frozenset(PLUGINS)
#: Words of any version that are not strategies -> the reason.
NOT_STRATEGIES = {
    "none": "is not a strategy: it does nothing",
    **{word: f"is not a strategy: it {reason}" for word, reason in NOT_OFFERED.items()},
}
#: The newest version whose strategies have the words above.
KNOWN_UNTIL = "0.4.0"
#: Strategies that need a permission, because they act on the text of a model or a prompt -> what
#: each does.
CODE_EXECUTION = {
    "z3": "runs Python code that the model wrote",
    "executecode": "runs Python code that the model wrote",
    "coc": "runs Python code that the model wrote",
    "mcp": "starts programs and calls the tools that the model chooses",
    "readurls": "opens the addresses that a prompt names",
    "web_search": "drives a browser with what the model wrote",
    "deep_research": "drives a browser with what the model wrote",
}

#: Signs that combine strategies in front of a model name.
_OPERATORS = {"&": "runs strategies one after the other", "|": "runs strategies side by side"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_]*")


def is_slug(word: str) -> bool:
    """Whether a word has the form of a strategy name."""
    return bool(_SLUG.fullmatch(word))


def are_known(version: str) -> bool:
    """Whether the strategies of this version of OptiLLM are known without the release."""
    return version_order(version) <= version_order(KNOWN_UNTIL)


def code_execution(strategies: Iterable[str]) -> dict[str, str]:
    """The strategies of CODE_EXECUTION in these strategies -> what each does.

    Parts of combined strategies count too: `moa&z3` contains `z3`.
    """
    parts = [part for strategy in strategies for part in re.split(r"[&|-]", strategy)]
    return {part: CODE_EXECUTION[part] for part in parts if part in CODE_EXECUTION}


def is_name(text: str) -> bool:
    """Whether a text has the form of a model name."""
    return bool(_NAME.fullmatch(text))


def base_model_problem(name: str, words: Collection[str] = WORDS) -> str | None:
    """The reason why OptiLLM would change this name of a base model, or None.

    `words`: the words that OptiLLM removes from the front of a name.
    """
    for sign, meaning in _OPERATORS.items():
        if sign in name:
            return f"contains {sign!r}, with which OptiLLM {meaning}"
    if not _NAME.fullmatch(name):
        return (
            "is not a model name: letters, digits and . _ : / @ + -, "
            "and a letter or digit at the beginning"
        )
    if name == "auto":
        return "is a reserved word of OptiLLM"
    first, dash, rest = name.partition("-")
    if first in words:
        empty = "" if rest else ", and no name is left"
        return f"begins with {first!r}: OptiLLM reads that as a strategy and removes it{empty}"
    if dash and first.lower() in words:
        return (
            f"begins with {first!r}, which looks like the strategy {first.lower()!r}; "
            "OptiLLM knows strategies in lower case only"
        )
    return None


def split(
    model: str, strategies: tuple[str, ...], base_models: tuple[str, ...]
) -> tuple[str, str] | None:
    """`moa-jerry-xl` -> ("moa", "jerry-xl"). None unless strategy and base model are enabled."""
    for base_model in base_models:
        strategy = model.removesuffix(f"-{base_model}")
        if strategy != model and strategy in strategies:
            return strategy, base_model
    return None


def parse(model: str, words: Collection[str] = WORDS) -> tuple[list[str], str]:
    """The strategies and the base model that OptiLLM reads from a name.

    OptiLLM removes every leading word of `words`. ([], name) for a name without a strategy. The
    base model may be empty.
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
    model: str,
    strategies: tuple[str, ...],
    base_models: tuple[str, ...],
    words: Collection[str] = WORDS,
) -> tuple[Literal["prefix", "strategy", "base model"], str] | None:
    """Why the guard refuses a model name: the kind of problem and the reason.

    None for a valid name. `words`: those that OptiLLM reads as strategies.
    """
    if split(model, strategies, base_models):
        return None
    words = {*words, *strategies}
    first, _, rest = model.partition("-")
    known = max((b for b in base_models if model.endswith(f"-{b}")), key=len, default=None)
    if any(sign in first for sign in _OPERATORS):
        return "strategy", f"{first!r} combines strategies, which is not enabled"
    if first not in words:
        if first.lower() in words:
            return "prefix", f"{first!r} is not a strategy: OptiLLM knows them in lower case only"
        return "prefix", "it has no strategy prefix"
    prefix = model.removesuffix(f"-{known}") if known else first
    if prefix not in strategies:
        return "strategy", f"{prefix!r} is not an enabled strategy"
    if not rest:
        return "base model", "no base model after the strategy"
    problem = base_model_problem(rest, words)
    return "base model", f"the base model {rest!r} {problem or 'is not in base_models'}"
