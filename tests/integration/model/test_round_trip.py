"""The judgement of every strategy is what the texts of the real model show."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from testing.litellm_proxy import facts
from testing.recorder import Recorded
from testing.support import STRATEGIES
from tests.integration.model import expected
from tests.integration.model.conftest import Site
from tests.integration.model.expected import Facts, Step, Text

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """A request: its prompt, its token limit, and whether it is streamed."""

    prompt: str
    max_tokens: int
    is_streamed: bool = False


#: One whose answers are short, and one whose answers the limit may end.
CASES = {
    "plain": Case("What is the capital of France? Answer in one word.", 48),
    "streamed": Case("Explain in two sentences why the sky is blue.", 48, True),
}


@dataclass(frozen=True)
class Asked:
    """A request of a client, the guard's headers and trace, and what the model was asked for it."""

    status: int
    text: str
    headers: dict[str, str]
    trace: dict[str, Any]
    steps: Sequence[Step]

    @property
    def facts(self) -> Facts:
        ratings = tuple(json.loads(self.headers.get("ratings", "[]")))
        votes, _, _ = self.headers.get("agreement", "0/5").partition("/")
        return Facts(ratings, int(votes))


def ask(site: Site, strategy: str, case: Case) -> Asked:
    """Send a request, and wait for its trace."""
    before = len(site.recorder.completions)
    response = site.litellm.ask(
        f"{strategy}-jerry-xl",
        case.prompt,
        timeout=300,
        max_tokens=case.max_tokens,
        **({"stream": True} if case.is_streamed else {}),
    )
    newest = site.service.get("/guard/traces").json()["traces"][0]["trace"]
    trace = site.service.get(f"/guard/traces/{newest}").json()
    is_whole = response.status_code == 200 and not case.is_streamed
    headers = facts(response) if is_whole else trace["facts"]
    steps = steps_of(trace, site.recorder.completions[before:])
    return Asked(response.status_code, text_of(response), headers, trace, steps)


def text_of(response: httpx.Response) -> str:
    """The answer, whole or from its chunks; the message of an error."""
    if response.status_code != 200:
        return str(response.json()["error"]["message"])
    if not response.headers["content-type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
    )


def steps_of(trace: dict[str, Any], recorded: Sequence[Recorded]) -> list[Step]:
    """The calls of a trace with what the model really sent: the texts are the same."""
    assert len(trace["calls"]) == len(recorded)
    left = list(recorded)
    steps = []
    for call in trace["calls"]:
        (place,) = [
            place
            for place, one in enumerate(left)
            if (one.body["messages"], one.texts) == (call["messages"], call["answers"])
        ][:1]
        one = left.pop(place)
        texts = [
            Text(text, finish == "length")
            for text, finish in zip(one.texts, one.finishes, strict=True)
        ]
        steps.append(Step(call["purpose"], texts, call["thread"], *rating_of(one.body)))
    return steps


def rating_of(body: dict[str, Any]) -> tuple[str, bool]:
    """The candidate that a call rates, and whether the strategy made the call."""
    said = [message["content"].strip() for message in body["messages"]]
    places = [at for at, text in enumerate(said) if text.startswith("Rate the above response:")]
    if not places:
        return "", True
    is_last = said[-1] == "Rate the above response:"
    return said[places[0] - 1], is_last and "response_format" not in body


def assert_facts(asked: Asked, strategy: str) -> None:
    """The headers beside the codes follow from the texts, too."""
    assert asked.headers.get("samples", "") == expected.samples(strategy, asked.steps)
    if strategy == "bon":
        groups = expected.rating_groups(asked.steps)
        assert len(groups) == len(asked.facts.ratings)
        for texts, rating in zip(groups, asked.facts.ratings, strict=True):
            assert expected.allows(texts, rating), (texts, rating)
    if strategy == "self_consistency":
        same = [
            text.text
            for text in expected.texts_of(asked.steps, "candidate")
            if text.text == asked.text and not text.truncated
        ]
        assert len(same) <= asked.facts.agreement <= 5


def assert_calls_are_marked(asked: Asked) -> None:
    """Each call shows the codes that concern it: all of them, and no others."""
    marks = {code for call in asked.trace["calls"] for code in call["codes"]}
    assert marks == set(asked.trace["degraded"])
    for call, step in zip(asked.trace["calls"], asked.steps, strict=True):
        if any(text.truncated for text in step.texts) and step.purpose != "rating":
            assert any(re.search("cut|truncated", code) for code in call["codes"]), call["codes"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_judgement_is_what_the_texts_show(site: Site, strategy: str, name: str) -> None:
    asked = ask(site, strategy, CASES[name])
    codes = expected.codes(strategy, asked.steps, asked.facts)
    assert set(filter(None, asked.headers.get("degraded", "").split(","))) == codes
    assert asked.headers["effect"] == expected.effect(codes)
    assert (asked.trace["strategy"], asked.trace["effect"]) == (strategy, expected.effect(codes))
    assert set(asked.trace["degraded"]) == codes
    assert_calls_are_marked(asked)
    if asked.status == 400 and expected.may_fail(strategy, asked.steps):
        assert asked.trace["code"] in ("answer_truncated", "answer_filtered")
        return
    assert asked.status == 200, asked.text
    answers = expected.answers(strategy, asked.steps, asked.facts)
    assert asked.text.strip() in {text.strip() for text in answers}
    assert_facts(asked, strategy)


def test_the_model_samples(site: Site) -> None:
    """The upstream honours `n` and the temperature: a mixture has something to mix."""
    before = len(site.recorder.completions)
    response = site.litellm.ask(
        "jerry-xl", "Write one sentence about the sea.", n=3, temperature=1, max_tokens=24
    )
    assert response.status_code == 200, response.text
    (recorded,) = site.recorder.completions[before:]
    assert len(set(recorded.texts)) == 3
    assert 3 < response.json()["usage"]["completion_tokens"] <= 3 * 24
