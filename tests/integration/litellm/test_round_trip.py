"""The whole way: client -> LiteLLM -> OptiLLM -> LiteLLM -> model, and back.

One LiteLLM with a master key serves them all: two guarded OptiLLMs, one for each
approach, a guarded and a bare one that hold a wrong LiteLLM key, and two bare ones for
the companions. `jerry-xl` is answered by LiteLLM itself, `counted-xl` by a stand-in that
counts what arrives.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing import litellm_proxy as helpers
from testing.litellm_proxy import Entrance, LiteLLM, Ports, facts
from testing.support import STRATEGIES

pytestmark = pytest.mark.slow

MOCKED = "The mocked model says four."
BASES = ("jerry-xl", "counted-xl", "slow-xl")
#: How many calls each strategy makes to the stand-in, whose answers are always the same.
CALLS = {"moa": 3, "bon": 4, "plansearch": 4, "self_consistency": 5}
#: LiteLLM's names begin with this, one for each OptiLLM; none is the name a user would publish.
PREFIXES = {
    "proxy": "",
    "auto": "auto:",
    "wrong-key": "wrong-key:",
    "bare": "bare:",
    "bare-proxy": "bare-proxy:",
    "bare-wrong-key": "bare-wrong-key:",
}

guarded = pytest.mark.parametrize("approach", ["proxy", "auto"])
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


@dataclass
class Site:
    """LiteLLM, and the model behind it that counts."""

    litellm: LiteLLM
    upstream: StandIn

    def upstream_calls(self) -> list[Seen]:
        return self.upstream.calls()

    def upstream_usage(self, since: int) -> dict[str, int]:
        """What the stand-in said it used, in every answer from its `since`th request on."""
        said = [completion(seen.body)["usage"] for seen in self.upstream.seen[since:] if seen.body]
        return {
            name: sum(usage[name] for usage in said)
            for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        }


def _slowly(seen: Seen) -> Reply | None:
    if seen.model == "slow-xl" and seen.body:
        return Reply(body=completion(seen.body), delay=0.3)
    return None


OPTILLMS = tuple(PREFIXES)


def models(ports: Ports) -> list[dict[str, Any]]:
    """LiteLLM's entries for this module."""
    entries = [helpers.mocked_entry("jerry-xl", MOCKED)]
    entries += [helpers.model_entry(base, ports.model_url) for base in BASES[1:]]
    entries += [
        helpers.strategy_entry(
            f"{prefix}{strategy}-{base}", ports.optillms[name], f"{strategy}-{base}"
        )
        for name, prefix in PREFIXES.items()
        for strategy in STRATEGIES
        for base in BASES
    ]
    return entries


@pytest.fixture(scope="module")
def site(release: Path, entrance: Entrance) -> Iterator[Site]:
    ports = entrance.ports[__name__]
    with ExitStack() as stack:
        upstream = stack.enter_context(
            StandIn(models=BASES, port=ports.model, respond=_slowly).running()
        )
        servers = [
            stack.enter_context(
                helpers.optillm(
                    release,
                    entrance.litellm.port,
                    port=port,
                    guard=not name.startswith("bare"),
                    approach="proxy" if name in ("proxy", "bare-proxy") else "auto",
                    base_models=BASES,
                    upstream_key="sk-not-the-master-key"
                    if name.endswith("wrong-key")
                    else helpers.MASTER_KEY,
                )
            )
            for name, port in ports.optillms.items()
        ]
        helpers.ready(*servers)
        yield Site(entrance.litellm, upstream)


def _events(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a whole stream, which must end with [DONE]."""
    lines = [
        line.removeprefix("data: ")
        for line in response.text.splitlines()
        if line.startswith("data: ")
    ]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def _assert_whole(usage: dict[str, Any]) -> None:
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@guarded
@every_strategy
def test_a_strategy_runs_on_the_base_model(site: Site, approach: str, strategy: str) -> None:
    model = f"{PREFIXES[approach]}{strategy}-jerry-xl"
    response = site.litellm.ask(model)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["choices"][0]["message"]["content"] == MOCKED
    assert answer["model"] == model
    assert answer["object"] == "chat.completion"
    _assert_whole(answer["usage"])
    told = facts(response)
    assert told["strategy"] == strategy
    assert told["upstream-models"] == "jerry-xl"
    assert told["upstream-failures"] == "0"
    # more than one answer was sampled: no plain call in disguise
    assert int(told["upstream-completions"]) > 1


@guarded
@every_strategy
def test_a_streamed_answer_is_whole(site: Site, approach: str, strategy: str) -> None:
    model = f"{PREFIXES[approach]}{strategy}-jerry-xl"
    response = site.litellm.ask(model, stream=True, stream_options={"include_usage": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = _events(response)
    pieces = [
        choice["delta"].get("content") or "" for event in events for choice in event["choices"]
    ]
    assert "".join(pieces) == MOCKED
    usages = [event["usage"] for event in events if event.get("usage")]
    assert len(usages) == 1
    _assert_whole(usages[0])
    assert facts(response)["strategy"] == strategy


@guarded
@every_strategy
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_calls_and_tokens_are_those_that_went_upstream(
    site: Site, approach: str, strategy: str, stream: bool
) -> None:
    before, calls_before = len(site.upstream.seen), len(site.upstream_calls())
    fields: dict[str, Any] = (
        {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    )
    response = site.litellm.ask(f"{PREFIXES[approach]}{strategy}-counted-xl", **fields)
    assert response.status_code == 200, response.text
    calls = site.upstream_calls()[calls_before:]
    assert len(calls) == CALLS[strategy]
    assert {call.model for call in calls} == {"counted-xl"}
    told = facts(response)
    assert told["upstream-calls"] == str(CALLS[strategy])
    usage = (
        next(e["usage"] for e in _events(response) if e.get("usage"))
        if stream
        else response.json()["usage"]
    )
    sent = site.upstream_usage(before)
    assert {name: usage[name] for name in sent} == sent
    assert told["tokens"] == str(sent["total_tokens"])


@guarded
def test_the_same_question_from_many_clients_is_no_loop(site: Site, approach: str) -> None:
    # the breaker knows a loop by its words: clients who ask the same must not look like one
    models = [f"{PREFIXES[approach]}{strategy}-slow-xl" for strategy in STRATEGIES] * 3
    started = time.monotonic()
    answers = helpers.ask_at_once(site.litellm, models, "What is 2 + 2?")
    assert [answer.status_code for answer in answers] == [200] * len(models)
    # they did overlap: one after the other, their calls alone would take longer
    assert time.monotonic() - started < 3 * sum(CALLS.values()) * 0.3


@every_strategy
def test_a_wrong_litellm_key_is_an_error(site: Site, strategy: str) -> None:
    before = len(site.upstream.seen)
    response = site.litellm.ask(f"wrong-key:{strategy}-counted-xl")
    assert response.status_code == 502
    assert "the upstream answered 40" in helpers.error_of(response)["message"]
    assert len(site.upstream.seen) == before


def test_bare_optillm_answers_200_with_a_wrong_litellm_key(site: Site) -> None:
    """Defect: `moa` and `bon` turn an outage into an answer."""
    response = site.litellm.ask("bare-wrong-key:moa-counted-xl")
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"].startswith("Error: ")


@every_strategy
def test_bare_optillm_has_no_prompt_tokens(site: Site, strategy: str) -> None:
    """Defect: a strategy's answer has no prompt_tokens, so LiteLLM books none, nor a total."""
    response = site.litellm.ask(f"bare:{strategy}-counted-xl")
    assert response.status_code == 200
    usage = response.json()["usage"]
    assert usage["completion_tokens"] > 0
    assert usage["prompt_tokens"] == usage["total_tokens"] == 0


@every_strategy
def test_bare_optillm_runs_no_strategy_under_approach_proxy(site: Site, strategy: str) -> None:
    """Defect: `moa-jerry-xl` is read as ['proxy', 'moa'], and only the first runs."""
    before = len(site.upstream_calls())
    response = site.litellm.ask(f"bare-proxy:{strategy}-counted-xl")
    assert response.status_code == 200
    # the plugin's first request also asks the model hidden questions of one token
    asked = [
        seen for seen in site.upstream_calls()[before:] if (seen.body or {}).get("max_tokens") != 1
    ]
    assert len(asked) == 1
