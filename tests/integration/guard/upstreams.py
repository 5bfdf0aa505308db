"""Upstreams that behave as real models do: each takes the effect of a strategy, with status 200."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optictl.guard import traces
from optictl.proof.standin import Reply, Seen, completion

Choice = tuple[str | None, str]
#: step -> choices, from the number of the call at this step and of samples asked. For a rating from
#: the place of its candidate and the number of the attempt: ratings come in any order.
Steps = dict[str, Callable[[int, int], list[Choice]]]


def texts(*contents: str | None, finish: str = "stop") -> Callable[[int, int], list[Choice]]:
    """These choices, whatever is asked for."""
    return lambda _call, _count: [(content, finish) for content in contents]


def fresh(call: int, count: int) -> list[Choice]:
    """As many different candidates as are asked for. They agree on the answer."""
    return [
        (f"Way {call}.{n}: two and two is counted. The answer is 4.", "stop") for n in range(count)
    ]


def ratings(place: int, _attempt: int) -> list[Choice]:
    return [(str((3, 9, 6)[place % 3]), "stop")]


#: What a model without faults answers.
HEALTHY: Steps = {
    "candidate": fresh,
    "rating": ratings,
    "critique": texts("1 is short, 2 is long, 3 is right."),
    "final": texts("The answer is 4."),
    "observations": texts("1. It is small.\n2. It is a sum."),
    "derived observations": texts("3. It fits into an integer."),
    "solution": texts("Add the numbers."),
}


@dataclass(frozen=True)
class Fault:
    """An upstream that is healthy but for these steps.

    `codes`: what the guard finds with every fix off. `left`: what it finds with every fix on; a
    number of the `fixes` acted then.
    """

    strategy: str
    steps: Steps
    codes: tuple[str, ...]
    left: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()


def _first_sample_only(call: int, _count: int) -> list[Choice]:
    """`n` is ignored."""
    return fresh(call, 1)


def _some_null(call: int, count: int) -> list[Choice]:
    return [choice if n != 1 else (None, "stop") for n, choice in enumerate(fresh(call, count))]


def _some_empty(call: int, _count: int) -> list[Choice]:
    # the first one only: of samples side by side, each one may be the third
    return [("", "stop")] if call == 0 else fresh(call, 1)


def _in_words(call: int, _count: int) -> list[Choice]:
    ways = ("I add two and two", "Let us count", "By definition", "On my fingers", "It is known")
    return [(f"{ways[call % 5] * 9}, so the answer is 4.", "stop")]


def _nothing_in_common(call: int, _count: int) -> list[Choice]:
    return [(chr(97 + call % 5) * 90, "stop")]


def _thinking(call: int, count: int) -> list[Choice]:
    same = "The answer is 4."
    return [
        (f"<think>{call} {n} {'hm ' * 40}</think>{same} {call}{n}", "stop") for n in range(count)
    ]


def _rated(form: str) -> Steps:
    return {"rating": lambda place, _attempt: [(form.format((3, 9, 6)[place % 3]), "stop")]}


def _number_when_asked_again(place: int, attempt: int) -> list[Choice]:
    return [("It is a good response.", "stop") if attempt == 0 else (str(4 + place), "stop")]


_CUT = texts("1 is short, 2 is", finish="length")
_THOUGHT_TOO_LONG = texts(None, finish="length")
_EMPTY, _NULL = texts(""), texts(None)

#: name -> a row of the strategies' own ways out
FAULTS: dict[str, Fault] = {
    "moa ignores n": Fault(
        "moa", {"candidate": _first_sample_only}, ("candidates_missing",), (), ("samples",)
    ),
    "moa null candidates": Fault(
        "moa", {"candidate": _some_null}, ("candidates_missing",), (), ("samples",)
    ),
    "moa copies": Fault(
        "moa",
        {"candidate": texts(*["four"] * 3)},
        ("candidates_identical",),
        ("candidates_identical",),
    ),
    "moa critique truncated": Fault(
        "moa", {"critique": _CUT}, ("critique_truncated",), ("critique_cut",), ("budgets",)
    ),
    "moa critique thinks too long": Fault(
        "moa", {"critique": _THOUGHT_TOO_LONG}, ("critique_truncated",), ("critique_truncated",)
    ),
    "moa critique null": Fault(
        "moa", {"critique": _NULL}, ("critique_empty",), ("critique_empty",)
    ),
    "moa critique empty": Fault(
        "moa", {"critique": _EMPTY}, ("critique_empty",), ("critique_empty",)
    ),
    "moa final truncated": Fault(
        "moa",
        {"final": texts("The", finish="length")},
        ("final_truncated",),
        ("final_cut",),
        ("budgets",),
    ),
    "moa final null": Fault("moa", {"final": _NULL}, ("final_empty",), ("final_empty",)),
    "moa final empty": Fault("moa", {"final": _EMPTY}, ("final_empty",), ("final_empty",)),
    "bon ignores n": Fault(
        "bon", {"candidate": _first_sample_only}, ("candidates_missing",), (), ("samples",)
    ),
    "bon of ten": Fault("bon", _rated("{}/10"), ("ratings_unreadable",), (), ("ratings",)),
    "bon named": Fault("bon", _rated("Rating: {}"), ("ratings_unreadable",), (), ("ratings",)),
    "bon bold": Fault("bon", _rated("**{}**"), ("ratings_unreadable",), (), ("ratings",)),
    "bon paragraph": Fault(
        "bon", {"rating": _number_when_asked_again}, ("ratings_unreadable",), (), ("ratings",)
    ),
    "bon no number ever": Fault(
        "bon", {"rating": texts("It is good.")}, ("ratings_unreadable",), ("ratings_unreadable",)
    ),
    "bon empty ratings": Fault(
        "bon", {"rating": _EMPTY}, ("ratings_unreadable",), ("ratings_unreadable",)
    ),
    "bon truncated ratings": Fault(
        "bon",
        {"rating": texts("Rating", finish="length")},
        ("ratings_unreadable",),
        ("ratings_unreadable",),
    ),
    "bon equal ratings": Fault(
        "bon", {"rating": texts("7")}, ("ratings_equal",), ("ratings_equal",)
    ),
    "self_consistency in words": Fault(
        "self_consistency", {"candidate": _in_words}, ("no_agreement",), (), ("votes",)
    ),
    "self_consistency never agrees": Fault(
        "self_consistency", {"candidate": _nothing_in_common}, ("no_agreement",), ("no_agreement",)
    ),
    "self_consistency empty samples": Fault(
        "self_consistency", {"candidate": _some_empty}, ("samples_empty",), (), ("samples",)
    ),
    "plansearch no observations": Fault(
        "plansearch", {"observations": _EMPTY}, ("observations_empty",), ("observations_empty",)
    ),
    "plansearch observations truncated": Fault(
        "plansearch",
        {"observations": _CUT, "derived observations": _CUT},
        ("observations_empty",),
        ("observations_cut",),
        ("budgets",),
    ),
    "plansearch solution truncated": Fault(
        "plansearch", {"solution": _CUT}, ("solution_truncated",), ("solution_cut",), ("budgets",)
    ),
    "plansearch solution null": Fault(
        "plansearch", {"solution": _NULL}, ("solution_truncated",), ("solution_truncated",)
    ),
    "moa thinking": Fault("moa", {"candidate": _thinking}, (), (), ("thinking",)),
}


def _codes(a: Fault, b: Fault) -> tuple[str, ...]:
    """One candidate alone has nothing to be equal to."""
    codes = (*a.codes, *b.codes)
    is_alone = a.steps.get("candidate") is _first_sample_only
    return tuple(code for code in codes if not (is_alone and code == "ratings_equal"))


def pairs() -> dict[str, Fault]:
    """Two faults of one strategy in different steps at the same time."""
    found = {}
    for (one, a), (other, b) in itertools.combinations(FAULTS.items(), 2):
        if a.strategy == b.strategy and not a.steps.keys() & b.steps.keys():
            found[f"{one} + {other}"] = Fault(
                a.strategy,
                {**a.steps, **b.steps},
                _codes(a, b),
                (*a.left, *b.left),
                (*a.fixes, *b.fixes),
            )
    return found


class Model:
    """What a stand-in answers as such an upstream: `respond`."""

    def __init__(self, strategy: str, steps: Steps) -> None:
        self._strategy, self._steps = strategy, {**HEALTHY, **steps}
        self._calls = dict.fromkeys(self._steps, 0)
        self._candidates: list[str | None] = []
        self._attempts: Counter[int] = Counter()

    def respond(self, seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        step = traces.purpose(self._strategy, seen.body.get("messages"))
        call, count = self._calls[step], int(seen.body.get("n") or 1)
        self._calls[step] += 1
        if step == "rating":
            call, count = self._rated(seen.body["messages"])
        choices = self._steps[step](call, count)
        if step == "candidate":
            self._candidates += [text for text, _ in choices]
        return Reply(body=answer(seen.body, choices))

    def _rated(self, messages: list[dict[str, Any]]) -> tuple[int, int]:
        """Which candidate a call rates, and how often that was asked before."""
        said = [one["content"] for one in messages if one["role"] == "assistant"]
        place = self._candidates.index(said[0]) if said and said[0] in self._candidates else 0
        self._attempts[place] += 1
        return place, self._attempts[place] - 1


def answer(body: dict[str, Any], choices: list[Choice]) -> dict[str, Any]:
    """A completion with these choices."""
    whole = completion(body, "x")
    whole["choices"] = [
        {
            "index": place,
            "finish_reason": finish,
            "message": {"role": "assistant", "content": content},
        }
        for place, (content, finish) in enumerate(choices)
    ]
    return json.loads(json.dumps(whole))
