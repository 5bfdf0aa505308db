"""The options of a strategy: samples, depth, temperature of candidates. Pure.

`optictl.yaml` sets them for a deployment, and may set bounds; a request chooses within these.
Source of the defaults and of what reads them: server.py and the strategies of OptiLLM 0.3.12 to
0.4.0.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """One option of a strategy. The default is OptiLLM's own.

    How OptiLLM gets it: `server` is a key of its configuration, `request` one of the configuration
    of a request. Of the others, see `patches` and `fixes`.
    """

    about: str
    default: float
    least: float
    most: float
    server: str = ""
    request: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole number."""
        return isinstance(self.default, int)

    @property
    def bounds(self) -> Bounds:
        """The widest bounds, and the default."""
        return Bounds(self.default, self.least, self.most)


@dataclass(frozen=True)
class Bounds:
    """What a deployment allows: the value without a request's own, and the range of that."""

    default: float
    least: float
    most: float


#: strategy -> option -> bounds, where a deployment sets them.
Deployment = Mapping[str, Mapping[str, Bounds]]


def _temperature(default: float, request: str = "") -> Option:
    return Option("the temperature of the candidates", default, 0.0, 2.0, request=request)


def _samples(default: int, least: int = 2, server: str = "", request: str = "") -> Option:
    return Option("the number of samples", default, least, 16, server, request)


OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "moa": {"temperature": _temperature(1.0)},
    "bon": {"samples": _samples(3, server="best_of_n"), "temperature": _temperature(1.0)},
    "self_consistency": {
        "samples": _samples(5),
        "temperature": _temperature(1.0),
        "similarity": Option("texts that are at least so similar vote together", 0.8, 0.0, 1.0),
    },
    "plansearch": {
        "observations": Option("the number of observations", 3, 1, 10),
        "derived_observations": Option("the number of those derived from them", 2, 1, 10),
    },
    "cot_reflection": {
        "temperature": Option("the temperature of the call", 0.6, 0.0, 2.0, request="temperature")
    },
    "mcts": {
        "simulations": Option("the number of simulations", 2, 1, 16, "mcts_simulations"),
        "depth": Option("the turns of a simulation", 1, 1, 8, "mcts_depth"),
        "exploration": Option("the weight of what is new", 0.2, 0.0, 10.0, "mcts_exploration"),
    },
    "rstar": {
        "rollouts": Option("the number of rollouts", 5, 1, 16, "rstar_num_rollouts"),
        "depth": Option("the steps of a rollout", 3, 1, 8, "rstar_max_depth"),
        "exploration": Option("the weight of what is new", 1.4, 0.0, 10.0, "rstar_c"),
    },
    "pvg": {
        "rounds": Option("the number of rounds", 2, 1, 8),
        "solutions": Option("the solutions of each kind in a round", 3, 1, 8),
    },
    "cepo": {
        "samples": _samples(3, least=1),
        "plans": Option("the plans for each sample", 3, 1, 8),
    },
    "majority_voting": {
        "samples": _samples(8, request="k"),
        "temperature": _temperature(0.6, "temperature"),
    },
    "genselect": {
        "samples": _samples(4, request="num_candidates"),
        "temperature": _temperature(0.7, "temperature"),
    },
    "deepthink": {
        "samples": Option("the number of samples", 3, 1, 10, request="deepthink_samples"),
        "confidence": Option(
            "the agreement from which it needs no further answer",
            0.7,
            0.0,
            1.0,
            request="confidence_threshold",
        ),
        "temperature": _temperature(0.7, "temperature"),
    },
}
#: Characters of a client's name that an error repeats.
_LONGEST_NAME = 40
_RANGE = ("default", "min", "max")


def _suggested(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(strategy: str, name: str) -> str:
    """The message about an option that a strategy does not have."""
    known = OPTIONS.get(strategy, {})
    if not known:
        return f"{strategy} has no options"
    suggestion = _suggested(name, known)
    return f"{strategy} has no option {name!r}{suggestion or '; it has: ' + ', '.join(known)}"


def _outside(option: Option, value: Any, least: float, most: float) -> str | None:
    """What a value must be, if it is not. None for a right one."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_right = is_number and (isinstance(value, int) or math.isfinite(value))
    if is_right and option.is_whole and not isinstance(value, int):
        is_right = False
    if is_right and least <= value <= most:
        return None
    kind = "a whole number" if option.is_whole else "a number"
    return f"must be {kind} from {least:g} to {most:g}"


def bounds(option: Option, value: Any) -> Bounds | str:
    """The bounds that a deployment sets with a number, or with `{default, min, max}`.

    Returns what is wrong with them as text.
    """
    given = value if isinstance(value, dict) else {"default": value}
    for name in given:
        if name not in _RANGE:
            return f"has no {name!r}: give a number, or default, min and max"
    for name, one in given.items():
        if what := _outside(option, one, option.least, option.most):
            return f"{name} {what}" if isinstance(value, dict) else what
    least, most = given.get("min", option.least), given.get("max", option.most)
    default = given.get("default", min(max(option.default, least), most))
    if not least <= default <= most:
        return f"must have min <= default <= max, not {least:g}, {default:g} and {most:g}"
    return Bounds(default, least, most)


def deployment_problems(given: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """What is wrong with the options of a deployment: the place of each problem, and its text."""
    problems: list[tuple[tuple[str, ...], str]] = []
    for strategy, options in given.items():
        known = OPTIONS.get(strategy)
        if known is None:
            suggestion = _suggested(strategy, OPTIONS)
            problems.append(((strategy,), f"no strategy {strategy!r} has options{suggestion}"))
            continue
        if not isinstance(options, dict):
            problems.append(((strategy,), "must be a mapping of options to values"))
            continue
        for name, value in options.items():
            if name not in known:
                problems.append(((strategy, str(name)), unknown(strategy, str(name))))
            elif isinstance(found := bounds(known[name], value), str):
                problems.append(((strategy, name), found))
    return problems


def flag(given: Mapping[str, Mapping[str, Any]]) -> str:
    """The options of a deployment as a flag of the guard: `bon.samples=5:2:16`; `none` of none."""
    parts = []
    for strategy, options in given.items():
        for name, value in options.items():
            found = bounds(OPTIONS[strategy][name], value)
            assert isinstance(found, Bounds)
            numbers = (found.default, found.least, found.most)
            parts.append(f"{strategy}.{name}={':'.join(map(repr, numbers))}")
    return ",".join(parts) or "none"


def deployment(text: str) -> Deployment:
    """The options of a deployment, from `flag`.

    Raises:
        ValueError: the text is none of it. The message has the part that is wrong.
    """
    found: dict[str, dict[str, Bounds]] = {}
    for part in text.split(",") if text != "none" else ():
        place, _, value = part.partition("=")
        strategy, _, name = place.partition(".")
        option = OPTIONS.get(strategy, {}).get(name)
        numbers = value.split(":")
        if option is None or len(numbers) != len(_RANGE):
            raise ValueError(f"{part!r} is not an option with its default and its range")
        read = int if option.is_whole else float
        try:
            given = dict(zip(_RANGE, map(read, numbers), strict=True))
        except ValueError:
            raise ValueError(f"{part!r} has no numbers") from None
        allowed = bounds(option, given)
        if isinstance(allowed, str):
            raise ValueError(f"{part!r} {allowed}")
        found.setdefault(strategy, {})[name] = allowed
    return found


@dataclass(frozen=True)
class Chosen:
    """The options of one request. `values`: all of the strategy. `asked`: those that it named."""

    strategy: str
    values: Mapping[str, float]
    asked: frozenset[str] = frozenset()

    def differs(self, name: str) -> bool:
        """Whether an option has another value than in OptiLLM."""
        option = OPTIONS.get(self.strategy, {}).get(name)
        return option is not None and self.values.get(name, option.default) != option.default

    @property
    def candidate_temperature(self) -> float | None:
        """The temperature of the calls for candidates, if it is another than in OptiLLM."""
        option = OPTIONS.get(self.strategy, {}).get("temperature")
        if option is None or option.request or not self.differs("temperature"):
            return None
        return self.values["temperature"]

    def server(self) -> dict[str, float]:
        """The options that OptiLLM reads from its configuration, by their names there."""
        return {
            option.server: self.values[name]
            for name, option in OPTIONS.get(self.strategy, {}).items()
            if option.server and name in self.values
        }

    def configuration(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        """What the strategy reads from the configuration of a request, with the parameters `sent`.

        A parameter of the client counts before the value of the deployment.
        """
        found = dict(sent)
        for name, option in OPTIONS.get(self.strategy, {}).items():
            is_set = option.request not in sent and self.differs(name)
            if option.request and (is_set or name in self.asked):
                found[option.request] = self.values[name]
        return found


def chosen(strategy: str, asked: Any, allowed: Deployment) -> Chosen | tuple[str, str]:
    """The options of a request for a strategy.

    Args:
        asked: the request's own, or None.
        allowed: what the deployment sets.

    Returns:
        The options; or the name of the wrong one ("" for all of them) and what is wrong.
    """
    known = OPTIONS.get(strategy, {})
    limits = {name: option.bounds for name, option in known.items()} | dict(
        allowed.get(strategy, {})
    )
    if asked is not None and not isinstance(asked, dict):
        return "", "must be an object with the strategy's options"
    values = {name: limit.default for name, limit in limits.items()}
    for name, value in (asked or {}).items():
        if name not in known:
            return name[:_LONGEST_NAME], unknown(strategy, name[:_LONGEST_NAME])
        limit = limits[name]
        if what := _outside(known[name], value, limit.least, limit.most):
            return name, what
        values[name] = value
    return Chosen(strategy, values, frozenset(asked or ()))
