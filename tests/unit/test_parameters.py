"""Which of a client's parameters go with which call of a strategy, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import parameters, request_schema
from optictl.guard.parameters import Parameters, Problem
from optictl.guard.responses import Refused

TOOL = {"type": "function", "function": {"name": "rain", "parameters": {}}}
FORMAT = {"type": "json_object"}
EVERYTHING: dict[str, Any] = {
    "temperature": 0.4,
    "top_p": 0.9,
    "top_k": 20,
    "min_p": 0.05,
    "seed": 7,
    "presence_penalty": 0.1,
    "frequency_penalty": -0.1,
    "logit_bias": {"50256": -100},
    "reasoning_effort": "low",
    "verbosity": "high",
    "service_tier": "flex",
    "stop": ["END"],
}


def of(strategy: str, **given_ones: Any) -> Parameters:
    found = parameters.of(strategy, given_ones)
    assert isinstance(found, Parameters), found
    return found


def call(
    found: Parameters,
    body: dict[str, Any],
    *,
    answers: bool = False,
    number: int = 0,
    has_tool_calls: bool = False,
) -> dict[str, Any]:
    return found.of_call(body, answers=answers, number=number, has_tool_calls=has_tool_calls)


def test_without_parameters_a_call_is_the_strategys_own() -> None:
    body = {"model": "m", "messages": [], "n": 3, "temperature": 1}
    assert call(of("moa"), body, answers=True, number=5) == body
    assert list(call(of("moa"), body)) == list(body)


def test_what_the_strategy_sets_stays() -> None:
    found = call(of("plansearch", **EVERYTHING), {"model": "m", "top_p": 0.5, "max_tokens": 9})
    expected = {name: value for name, value in EVERYTHING.items() if name != "stop"}
    assert found == {**expected, "model": "m", "top_p": 0.5, "max_tokens": 9}


def test_what_has_no_effect_is_dropped_by_name() -> None:
    assert of("moa", **EVERYTHING).dropped == ("temperature",)
    assert of("plansearch", **EVERYTHING).dropped == ()
    assert of("cot_reflection", **EVERYTHING).configuration() == {"temperature": 0.4}
    assert of("deepthink", **EVERYTHING).configuration() == {"temperature": 0.4, "top_p": 0.9}
    assert of("moa", **EVERYTHING).configuration() == {}


def test_each_sample_has_its_own_seed() -> None:
    seeds = [call(of("bon", seed=7), {}, number=number)["seed"] for number in range(4)]
    assert seeds == [7, 8, 9, 10]
    highest = 2**63 - 1
    last = [call(of("bon", seed=highest - 1), {}, number=n)["seed"] for n in range(4)]
    assert len(set(last)) == 4
    assert max(last) == highest


@pytest.mark.parametrize(
    ("strategy", "answering", "other"),
    [
        ("moa", "final", "candidate"),
        ("moa", "final", "critique"),
        ("plansearch", "final", "solution"),
        ("bon", "candidate", "rating"),
        ("self_consistency", "candidate", "call"),
    ],
)
def test_the_form_of_the_answer_is_that_of_its_call(
    strategy: str, answering: str, other: str
) -> None:
    found = of(strategy, stop="END", response_format=FORMAT)
    assert found.answers(answering, is_whole=False)
    assert not found.answers(other, is_whole=True)
    assert call(found, {}, answers=True) == {"stop": "END", "response_format": FORMAT}
    assert call(found, {}) == {}


def test_the_answer_of_a_vote_is_that_of_a_call_with_the_question() -> None:
    found = of("genselect", response_format=FORMAT)
    assert found.answers("call", is_whole=True)
    assert not found.answers("call", is_whole=False)
    assert of("none").answers("call", is_whole=False)
    assert not of("mcts").answers("call", is_whole=True)


def test_calls_of_tools_in_a_conversation_have_their_tools() -> None:
    found = of("moa", tools=[TOOL], tool_choice="required", parallel_tool_calls=False)
    assert call(found, {}, has_tool_calls=True) == {"tools": [TOOL], "tool_choice": "none"}
    assert call(found, {}, answers=True, has_tool_calls=True) == {
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }
    assert call(of("moa"), {}, has_tool_calls=True) == {}


@pytest.mark.parametrize("strategy", ["plansearch", "cot_reflection", "mcts", "rto", "z3", "mine"])
def test_tools_are_refused_where_no_call_is_the_answer(strategy: str) -> None:
    found = parameters.of(strategy, {"tools": [TOOL]})
    assert isinstance(found, Problem)
    assert found.param == "tools"
    assert found.message.startswith(f"{strategy} cannot call a tool: ")
    assert "moa, bon, self_consistency, re2" in found.message


@pytest.mark.parametrize("strategy", ["cot_reflection", "mcts", "rto", "leap", "mine"])
def test_a_format_is_refused_where_no_call_is_the_answer(strategy: str) -> None:
    found = parameters.of(strategy, {"response_format": FORMAT})
    assert isinstance(found, Problem)
    assert found.param == "response_format"


@pytest.mark.parametrize("strategy", ["moa", "mcts", "mine"])
def test_what_says_nothing_is_no_problem(strategy: str) -> None:
    assert of(strategy, tools=[], response_format={"type": "text"}) == of(strategy)
    assert of(strategy, tools=[], tool_choice="auto").dropped == ("tool_choice",)


def test_tools_that_must_not_be_called_are_dropped() -> None:
    assert of("mcts", tools=[TOOL], tool_choice="none").dropped == ("tool_choice", "tools")
    assert of("moa", tools=[TOOL], tool_choice="none").dropped == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", True),
        ("top_p", [1]),
        ("seed", 1.5),
        ("seed", 2**63),
        ("stop", ""),
        ("stop", []),
        ("stop", ["a", 1]),
        ("logit_bias", {"1": "x"}),
        ("logit_bias", [1]),
        ("reasoning_effort", 3),
        ("response_format", "json"),
        ("response_format", {}),
        ("tools", {}),
        ("tools", [1]),
        ("tool_choice", 1),
        ("parallel_tool_calls", "yes"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(name: str, value: Any) -> None:
    body = {"model": "moa-m", "messages": [{"role": "user", "content": "q"}], name: value}
    with pytest.raises(Refused) as refused:
        request_schema.parse(body)
    assert (refused.value.status, refused.value.param) == (400, name)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_no_number_is_not_json(number: str) -> None:
    with pytest.raises(Refused, match="JSON"):
        request_schema.load(b'{"temperature": %s}' % number.encode())
    with pytest.raises(Refused):
        request_schema.parse({"model": "moa-m", "messages": [], "temperature": float("inf")})


def test_the_door_names_the_field_that_a_strategy_cannot_keep() -> None:
    message = {"role": "user", "content": "q"}
    body = request_schema.parse({"model": "mcts-m", "messages": [message], "tools": [TOOL]})
    with pytest.raises(Refused) as refused:
        request_schema.for_strategy(body, "mcts", {})
    found = refused.value
    assert (found.status, found.code, found.param) == (400, "parameter_not_supported", "tools")


@given(st.text(alphabet="abX\n", max_size=12), st.lists(st.text(alphabet="abX\n", min_size=1)))
def test_a_text_ends_before_the_first_stop(text: str, stops: list[str]) -> None:
    found = parameters.stopped(text, stops)
    assert text.startswith(found)
    assert not any(stop in found for stop in stops)
    if not any(stop in text for stop in stops):
        assert found == text
