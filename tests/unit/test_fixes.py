"""The fixes of a strategy's client, against a scripted upstream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from optictl.guard import accounting, parameters, ratings, strategy_options
from optictl.guard.exchanges import Run
from optictl.guard.fixes import FixedClient, Policy
from optictl.guard.settings import FIXES
from optictl.guard.support import RatingSupport, SampleSupport
from optictl.guard.threads import Threads

RATE = "Rate the above response:"
CRITICISE = "Please provide your critique for each candidate:"
Body = dict[str, Any]
THREADS = Threads()


def choice(text: str | None, finish: str = "stop") -> Body:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": finish}


def answer(*texts: str | None, finish: str = "stop", tokens: int = 5) -> Body:
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
    return {"id": "x", "choices": [choice(text, finish) for text in texts], "usage": usage}


class Scripted:
    """A client of a strategy, and what it sent."""

    def __init__(
        self,
        respond: Callable[[Body], Body],
        strategy: str = "moa",
        on: tuple[str, ...] = FIXES,
        max_tokens: int = 0,
        support: SampleSupport | None = None,
        schemas: RatingSupport | None = None,
    ) -> None:
        self.request = accounting.Request(strategy, "jerry-xl", 64, 600.0, max_tokens)
        self.run = Run()
        self.sent: list[Body] = []
        self._respond = respond
        policy = Policy(frozenset(on))
        known = (support or SampleSupport(), schemas or RatingSupport())
        self.client = FixedClient(self.request, self.run, policy, known, self._send, THREADS)

    def _send(self, body: Body, sending: accounting.Sending) -> Body:
        sending.places.append(len(self.sent))
        self.sent.append(body)
        return self._respond(body)

    def create(self, prompt: str, **arguments: Any) -> Any:
        messages = [{"role": "user", "content": prompt}]
        return self.client.chat.completions.create(model="jerry-xl", messages=messages, **arguments)

    @property
    def fixed(self) -> list[str]:
        return sorted(self.request.fixed)


def texts(completion: Any) -> list[str | None]:
    return [one.message.content for one in completion.choices]


def counting(*shapes: Body) -> Callable[[Body], Body]:
    """These answers in turn, the last one again and again."""
    left = list(shapes)
    return lambda _body: left.pop(0) if len(left) > 1 else left[0]


# -- the client's parameters and options


def settle(one: Scripted, **given: Any) -> Scripted:
    """The client of a strategy for a request with parameters."""
    found = parameters.of(one.request.strategy, given)
    assert isinstance(found, parameters.Parameters)
    one.request.parameters = found
    return one


def test_missing_samples_have_the_next_seeds() -> None:
    one = settle(Scripted(counting(answer("a"), answer("b"))), seed=10)
    assert texts(one.create("q", n=3)) == ["a", "b", "b"]
    assert sorted(body["seed"] for body in one.sent) == [10, 11, 12]
    one.create("q", n=3)
    assert sorted(body["seed"] for body in one.sent[3:]) == [13, 14, 15]
    one.create("other")
    assert one.sent[-1]["seed"] == 10


def test_another_run_has_other_seeds() -> None:
    one = settle(Scripted(lambda _body: answer("a", "b", "c")), seed=10)
    one.run.place = 1
    one.create("q", n=3)
    assert one.sent[0]["seed"] == 1010


def test_samples_with_different_seeds_are_no_copies_of_a_cache() -> None:
    one = settle(Scripted(lambda _body: answer("a"), "self_consistency"), seed=10)
    for _ in range(2):
        one.create("q")
    assert not any("cache" in body for body in one.sent)


def test_a_temperature_of_the_options_is_that_of_the_candidates() -> None:
    one = Scripted(lambda _body: answer("a", "b", "c"))
    chosen = strategy_options.chosen("moa", {"temperature": 0.2}, {})
    assert isinstance(chosen, strategy_options.Chosen)
    one.request.options = chosen
    one.create("q", n=3, temperature=1)
    one.create(CRITICISE, temperature=0.1)
    assert [body["temperature"] for body in one.sent] == [0.2, 0.1]


def test_a_call_of_a_tool_is_no_missing_sample() -> None:
    tool = {"type": "function", "function": {"name": "rain"}}
    call = {"id": "c", "type": "function", "function": {"name": "rain", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    whole = {**answer(None), "choices": [{"message": message, "finish_reason": "tool_calls"}] * 3}
    one = settle(Scripted(lambda _body: whole, "bon"), tools=[tool])
    assert texts(one.create("q", n=3)) == ["Tool call: rain({})"] * 3
    assert len(one.sent) == 1
    assert one.run.called == {"Tool call: rain({})": message}
    assert one.run.exchanges[0].samples[0].finish == "tool_calls"


# -- samples


def test_missing_choices_are_asked_for_side_by_side() -> None:
    numbers = iter("abcdef")
    scripted = Scripted(lambda body: answer(next(numbers)))
    completion = scripted.create("q", n=3)
    assert sorted(map(str, texts(completion))) == ["a", "b", "c"]
    assert [one.get("n") for one in scripted.sent] == [3, None, None]
    assert completion.usage.completion_tokens == 15
    (exchange,) = scripted.run.exchanges
    assert (exchange.asked, len(exchange.samples)) == (3, 3)
    assert sorted(exchange.calls) == [0, 1, 2]
    assert "samples" in scripted.fixed


def test_the_missing_choices_of_a_model_are_remembered_for_a_while() -> None:
    numbers = iter("abcdefghij")
    support = SampleSupport(seconds=60)
    Scripted(lambda body: answer(next(numbers)), support=support).create("q", n=3)
    again = Scripted(lambda body: answer(next(numbers)), support=support)
    assert len(texts(again.create("q", n=3))) == 3
    assert [one.get("n") for one in again.sent] == [None, None, None]
    later = Scripted(lambda body: answer(next(numbers)), support=SampleSupport(seconds=0))
    later.create("q", n=3)
    assert later.sent[0]["n"] == 3


def test_an_empty_choice_is_asked_for_again() -> None:
    scripted = Scripted(counting(answer("a", None, ""), answer("b")))
    assert texts(scripted.create("q", n=3)) == ["a", "b", "b"]
    assert len(scripted.sent) == 3


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_what_would_end_the_same_way_is_not_asked_for_again(finish: str) -> None:
    first = answer("a", "b")
    first["choices"].append(choice(None, finish))
    scripted = Scripted(counting(first, answer("c")))
    assert texts(scripted.create("q", n=3)) == ["a", "b", None]
    assert len(scripted.sent) == 1


def test_a_failed_further_sample_loses_nothing() -> None:
    def respond(body: Body) -> Body:
        if body.get("n") != 3:
            raise RuntimeError
        return answer("a")

    scripted = Scripted(respond)
    assert texts(scripted.create("q", n=3)) == ["a"]
    assert scripted.fixed == ["caches"]


def test_if_every_single_sample_fails_the_error_is_the_strategys() -> None:
    support = SampleSupport()
    support.remember("jerry-xl")

    def respond(_body: Body) -> Body:
        raise ValueError("no")

    scripted = Scripted(respond, support=support)
    with pytest.raises(ValueError, match="no"):
        scripted.create("q", n=3)
    assert scripted.run.exchanges[0].failed


def test_the_end_of_a_request_ends_its_samples() -> None:
    support = SampleSupport()
    support.remember("jerry-xl")

    def respond(_body: Body) -> Body:
        raise accounting.Abort(400, "upstream_call_limit", "enough")

    with pytest.raises(accounting.Abort):
        Scripted(respond, support=support).create("q", n=3)


# -- budgets


@pytest.mark.parametrize(
    ("client_limit", "sent"), [(0, 4096), (1000, 1000), (100, 512), (9999, 4096)]
)
def test_a_critique_gets_room_within_the_clients_limit(client_limit: int, sent: int) -> None:
    scripted = Scripted(counting(answer("x")), max_tokens=client_limit)
    scripted.create(CRITICISE, max_tokens=512, n=1)
    assert scripted.sent[0]["max_tokens"] == sent


def test_a_budget_that_was_needed_is_counted() -> None:
    scripted = Scripted(counting(answer("x", tokens=513)))
    scripted.create(CRITICISE, max_tokens=512, n=1)
    assert scripted.fixed == ["budgets"]


def test_a_part_of_a_critique_is_used() -> None:
    scripted = Scripted(counting(answer("1 is", finish="length")))
    completion = scripted.create(CRITICISE, max_tokens=512, n=1)
    assert completion.choices[0].finish_reason == "stop"
    assert scripted.run.exchanges[0].cut
    nothing = Scripted(counting(answer("", finish="length")))
    assert nothing.create(CRITICISE, n=1).choices[0].finish_reason == "length"
    assert not nothing.run.exchanges[0].cut


# -- ratings


@pytest.mark.parametrize(("said", "read"), [("8/10", "8"), ("**7.5**", "7.5"), ("9", "9")])
def test_a_rating_becomes_a_number(said: str, read: str) -> None:
    scripted = Scripted(counting(answer(said)), "bon")
    assert texts(scripted.create(RATE, max_tokens=256, n=1)) == [read]
    assert len(scripted.sent) == 1
    assert scripted.fixed == ([] if said == read else ["ratings"])


def test_a_rating_without_a_number_is_asked_for_once_more() -> None:
    scripted = Scripted(counting(answer("It is good."), answer("8")), "bon")
    completion = scripted.create(RATE, max_tokens=256, n=1)
    assert texts(completion) == ["8"]
    assert completion.usage.completion_tokens == 10
    asked = scripted.sent[1]["messages"]
    assert [one["role"] for one in asked] == ["user", "assistant", "user"]
    assert asked[-1]["content"] == ratings.ASK_AGAIN


def test_a_rating_that_never_comes_is_forced_with_a_schema() -> None:
    schemas = RatingSupport()
    shapes = counting(answer("It is good."), answer("Fine."), answer('{"rating": 7}'))
    scripted = Scripted(shapes, "bon", schemas=schemas)
    assert texts(scripted.create(RATE, max_tokens=256, n=1)) == ["7"]
    assert scripted.sent[2]["response_format"]["type"] == "json_schema"
    assert scripted.sent[2]["messages"] == scripted.sent[0]["messages"]
    assert scripted.fixed == ["ratings"]
    never = Scripted(counting(answer("It is good.")), "bon", schemas=schemas)
    assert texts(never.create(RATE, max_tokens=256, n=1)) == ["It is good."]
    assert len(never.sent) == 3
    # a model that does not follow it is not asked so again for a while
    assert texts(never.create(RATE, max_tokens=256, n=1)) == ["It is good."]
    assert len(never.sent) == 5


def test_a_rating_that_the_limit_ended_is_read_all_the_same() -> None:
    scripted = Scripted(counting(answer("Rating: 8. It", finish="length")), "bon")
    completion = scripted.create(RATE, max_tokens=256, n=1)
    assert (texts(completion), completion.choices[0].finish_reason) == (["8"], "stop")


def test_an_empty_rating_is_asked_for_without_an_empty_message() -> None:
    scripted = Scripted(counting(answer(None), answer("3")), "bon")
    assert texts(scripted.create(RATE, max_tokens=256, n=1)) == ["3"]
    (message,) = scripted.sent[1]["messages"]
    assert message["content"] == f"{RATE}\n{ratings.ASK_AGAIN}"


# -- thinking


def test_the_critic_does_not_see_thinking_and_the_client_gets_it() -> None:
    whole = "<think>2+2</think>\n4"
    scripted = Scripted(counting(answer(whole, "5", "6")))
    assert texts(scripted.create("q", n=3)) == ["4", "5", "6"]
    assert scripted.run.originals == {"4": whole}
    assert scripted.fixed == ["thinking"]


def test_a_final_text_is_left_as_it_is() -> None:
    scripted = Scripted(counting(answer("<think>2+2</think>4")), "re2")
    assert texts(scripted.create("q")) == ["<think>2+2</think>4"]


def test_thinking_alone_is_no_candidate() -> None:
    scripted = Scripted(counting(answer("<think>2+2", "5", "6", finish="length")))
    assert texts(scripted.create("q", n=3)) == [None, "5", "6"]


# -- caches


def test_the_same_question_again_is_not_answered_from_a_cache() -> None:
    scripted = Scripted(counting(answer("4")), "self_consistency")
    for _ in range(3):
        scripted.create("q")
    scripted.create("another")
    assert [one.get("cache") for one in scripted.sent] == [
        None,
        {"no-cache": True},
        {"no-cache": True},
        None,
    ]


# -- off


@pytest.mark.parametrize(
    "data",
    [
        answer("a"),
        answer(None, "", "c"),
        answer("<think>x</think>a", "b", "c", finish="length"),
        {"choices": [], "usage": {}},
    ],
)
def test_without_fixes_nothing_changes(data: Body) -> None:
    for strategy, prompt in [("moa", "q"), ("moa", CRITICISE), ("bon", RATE)]:
        scripted = Scripted(lambda _body: data, strategy, on=())
        completion = scripted.create(prompt, n=3, max_tokens=512)
        again = scripted.create(prompt, n=3, max_tokens=512)
        assert again.model_dump() == completion.model_dump()
        assert texts(completion) == [one["message"]["content"] for one in data["choices"]]
        assert [one["finish_reason"] for one in data["choices"]] == [
            one.finish_reason for one in completion.choices
        ]
        messages = [{"role": "user", "content": prompt}]
        sent = {"model": "jerry-xl", "messages": messages, "n": 3, "max_tokens": 512}
        assert scripted.sent == [sent, sent]
        assert scripted.fixed == []
        assert len(scripted.run.exchanges) == 2


@pytest.mark.parametrize("data", [{}, {"choices": None}, {"choices": ["x"]}, {"choices": [{}]}])
@pytest.mark.parametrize("on", [(), FIXES])
def test_what_is_no_completion_is_a_failed_step(data: Body, on: tuple[str, ...]) -> None:
    scripted = Scripted(lambda _body: data, on=on)
    with pytest.raises(ValueError, match="not a chat completion"):
        scripted.create("q", n=3)
    assert scripted.run.exchanges[0].failed


def test_every_fix_can_be_named() -> None:
    assert set(FIXES) == {"samples", "budgets", "ratings", "votes", "caches", "thinking"}
