"""The parameters of a client's request on their way to the calls of a strategy. Pure.

A strategy sets the parameters that it needs. All others are the client's: they go with every call,
and those about the form of the answer with the calls whose text is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: They go with every call in which the strategy does not set them itself.
EVERYWHERE = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
    "service_tier",
)
#: They go with the calls whose text is the answer.
TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
PROBABILITIES = ("logprobs", "top_logprobs")
ANSWERING = ("stop", "response_format", *PROBABILITIES, *TOOLS)

#: strategy -> what it sets in each of its calls, so that the client's value has no effect.
#: Source: the strategies of OptiLLM 0.3.12 to 0.4.0.
_OWN: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("moa", "bon", "self_consistency", "mcts", "rto", "z3", "pvg", "rstar", "mars"),
        frozenset({"temperature"}),
    ),
    "cepo": frozenset({"temperature", "top_p"}),
}
#: strategy -> what it reads from the configuration of a request.
READ: Mapping[str, tuple[str, ...]] = {
    "cot_reflection": ("temperature",),
    "majority_voting": ("temperature",),
    "genselect": ("temperature",),
    "deepthink": ("temperature", "top_p"),
}
#: strategy -> the step whose text is the answer, as it is. "": of every call; None: of each call
#: that passes the conversation on.
ANSWER_STEPS: Mapping[str, str | None] = {
    "none": "",
    "moa": "final",
    "plansearch": "final",
    "re2": "final",
    "bon": "candidate",
    "self_consistency": "candidate",
    "majority_voting": None,
    "genselect": None,
}
#: The strategies whose answer can be a call of a tool. `plansearch` always writes a program.
WITH_TOOLS = ("moa", "bon", "self_consistency", "re2", "none")
_WHOLE_NUMBERS_END = 2**63


@dataclass(frozen=True)
class Problem:
    """What is wrong with a parameter. `param`: its name."""

    param: str
    message: str


@dataclass(frozen=True)
class Parameters:
    """The parameters of one request, for one strategy.

    `everywhere`: for all calls. `answering`: for those whose text is the answer. `dropped`: the
    names of those without an effect.
    """

    strategy: str = ""
    everywhere: Mapping[str, Any] = field(default_factory=dict)
    answering: Mapping[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def stops(self) -> list[str]:
        """The texts that end the answer."""
        stop = self.answering.get("stop") or []
        return [stop] if isinstance(stop, str) else list(stop)

    @property
    def has_tools(self) -> bool:
        """Whether the answer may be a call of a tool."""
        return "tools" in self.answering

    def configuration(self) -> dict[str, Any]:
        """What the strategy reads itself."""
        names = READ.get(self.strategy, ())
        return {name: self.everywhere[name] for name in names if name in self.everywhere}

    def answers(self, step: str, *, is_whole: bool) -> bool:
        """Whether the text of a call is the answer.

        `is_whole`: the call passes the conversation on.
        """
        expected = ANSWER_STEPS.get(self.strategy, "no step")
        return is_whole if expected is None else expected in ("", step)

    def of_call(
        self, body: Mapping[str, Any], *, answers: bool, has_tool_calls: bool, number: int
    ) -> dict[str, Any]:
        """The body of a call with the parameters.

        Args:
            answers: its text is the answer.
            has_tool_calls: its messages have calls of tools.
            number: which sample of the same question it is, from 0. Each has its own seed.
        """
        more = dict(self.everywhere)
        if "seed" in more:
            more["seed"] = _shifted(more["seed"], number)
        if answers:
            more |= self.answering
        elif has_tool_calls and self.has_tools:
            # some providers refuse calls of tools in a conversation without these tools
            more |= {"tools": self.answering["tools"], "tool_choice": "none"}
        return {**more, **body} if more else dict(body)


def _shifted(seed: int, number: int) -> int:
    """Another seed for each number. A seed is a signed number of 64 bits."""
    return seed + number if seed + number < _WHOLE_NUMBERS_END else seed - number


def of(strategy: str, given: Mapping[str, Any]) -> Parameters | Problem:
    """The parameters of a request for a strategy. `given`: those that `problem` has checked.

    A form of the answer that the strategy cannot keep is a problem, and not dropped: the client
    could not read the answer.
    """
    given = {name: value for name, value in given.items() if not _is_default(name, value)}
    own = _OWN.get(strategy, frozenset())
    dropped = {name for name in given if name in own}
    if "tools" not in given:
        dropped |= {name for name in TOOLS if name in given}
    elif strategy not in WITH_TOOLS:
        if given.get("tool_choice") != "none":
            return _cannot(strategy, "tools", "call a tool", WITH_TOOLS)
        dropped |= {name for name in TOOLS if name in given}
    if "response_format" in given and strategy not in ANSWER_STEPS:
        return _cannot(strategy, "response_format", "keep to a format", tuple(ANSWER_STEPS))
    if strategy not in ANSWER_STEPS:
        dropped |= {name for name in PROBABILITIES if name in given}
    kept = {name: value for name, value in given.items() if name not in dropped}
    return Parameters(
        strategy,
        everywhere={name: value for name, value in kept.items() if name in EVERYWHERE},
        answering={name: value for name, value in kept.items() if name in ANSWERING},
        dropped=tuple(sorted(dropped)),
    )


def _is_default(name: str, value: Any) -> bool:
    """Whether a value says nothing: no tools, or text as the format."""
    return (name == "tools" and not value) or (
        name == "response_format" and value.get("type") == "text"
    )


def _cannot(strategy: str, param: str, what: str, able: tuple[str, ...]) -> Problem:
    others = ", ".join(name for name in able if name != "none")
    why = (
        "it always writes a program"
        if strategy == "plansearch"
        else "its answer is not what one call of the model returned"
    )
    return Problem(
        param, f"{strategy} cannot {what}: {why}. Leave {param} out, or use one of: {others}"
    )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # an integer may be too large for a float
    return is_number and (isinstance(value, int) or math.isfinite(value))


def _is_whole(value: Any) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and -_WHOLE_NUMBERS_END <= value < _WHOLE_NUMBERS_END


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _are_stops(value: Any) -> bool:
    stops = value if isinstance(value, list) else [value]
    return bool(stops) and all(map(_is_word, stops))


def _are_biases(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _has_type(value: Any) -> bool:
    return isinstance(value, dict) and _is_word(value.get("type"))


_NUMBER = "must be a number", _is_number
_WORD = "must be text", _is_word
#: parameter -> what it must be, and how to see it. Its range is the model's affair.
_FORMS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("temperature", "top_p", "min_p"), _NUMBER),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), _NUMBER),
    **dict.fromkeys(("reasoning_effort", "verbosity", "service_tier"), _WORD),
    "top_k": ("must be a whole number", _is_whole),
    "logprobs": ("must be true or false", lambda value: isinstance(value, bool)),
    "top_logprobs": ("must be a whole number", _is_whole),
    "seed": ("must be a whole number of 64 bits", _is_whole),
    "logit_bias": ("must be an object with a number for each token", _are_biases),
    "stop": ("must be a text or a list of texts, none of them empty", _are_stops),
    "response_format": ("must be an object with a type", _has_type),
    "tools": (
        "must be a list of objects with a type",
        lambda value: isinstance(value, list) and all(map(_has_type, value)),
    ),
    "tool_choice": (
        "must be text or an object with a type",
        lambda value: _is_word(value) or _has_type(value),
    ),
    "parallel_tool_calls": ("must be true or false", lambda value: isinstance(value, bool)),
}
NAMES = frozenset(_FORMS)


def problem(given: Mapping[str, Any]) -> Problem | None:
    """The first value of the wrong kind. None if all are right."""
    for name, value in given.items():
        what, is_right = _FORMS[name]
        if not is_right(value):
            return Problem(name, f"{name} {what}")
    return None


def stopped(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the texts that end it."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(places)] if places else text
