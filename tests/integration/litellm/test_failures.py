"""A model that fails, seen by a client of LiteLLM: an error, at a bounded price.

Every case has its own base model, because LiteLLM keeps one that answered 401 from
being asked again for five seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optictl.proof.standin import Reply, Seen, StandIn
from testing import litellm_proxy as helpers
from testing.litellm_proxy import Entrance, LiteLLM, Ports
from testing.support import STRATEGIES

pytestmark = pytest.mark.slow

APPROACHES = ("proxy", "auto")
#: What the model answers -> what the client gets.
STATUSES = {500: 502, 401: 502, 429: 429}
#: The most calls a strategy makes when each of them fails: `moa` and `bon` ask for three
#: answers at once and then for each alone.
MOST_CALLS = {"moa": 4, "bon": 4, "plansearch": 1, "self_consistency": 1}

both_approaches = pytest.mark.parametrize("approach", APPROACHES)
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_status = pytest.mark.parametrize("status", STATUSES)


def base(status: int, case: str) -> str:
    """The base model that always answers `status`, for one test alone."""
    return f"down-{status}-{case}-xl"


CASES = {
    at: [f"{strategy}-at-{at}" for strategy in (*STRATEGIES, "streamed", "retried")]
    for at in APPROACHES
} | {"bare": ["bare"]}
BASES = {
    at: [base(status, case) for case in cases for status in STATUSES] for at, cases in CASES.items()
}


def _fail(seen: Seen) -> Reply | None:
    if not seen.model.startswith("down-"):
        return None
    status = int(seen.model.split("-")[1])
    headers = {"Retry-After": "7"} if status == 429 else {}
    return Reply(
        status, {"error": {"message": f"the model said {status}", "code": str(status)}}, headers
    )


@dataclass
class Site:
    """LiteLLM and the model behind it that fails."""

    litellm: LiteLLM
    upstream: StandIn

    def calls(self, model: str) -> int:
        """How many times this base model was asked."""
        return sum(seen.model == model for seen in self.upstream.seen)


OPTILLMS = tuple(CASES)


def models(ports: Ports) -> list[dict[str, Any]]:
    """LiteLLM's entries for this module."""
    entries = []
    for at, port in ports.optillms.items():
        entries += [
            helpers.strategy_entry(f"{strategy}-{name}", port)
            for strategy in STRATEGIES
            for name in BASES[at]
        ]
        for name in BASES[at]:
            once = {} if "-retried-" in name else {"num_retries": 0, "max_retries": 0}
            # the bare one's SDK would wait as long as LiteLLM keeps a model from being asked
            patience = {"cooldown_time": 0} if at == "bare" else {}
            entries.append(helpers.model_entry(name, ports.model_url, **once, **patience))
    return entries


@pytest.fixture(scope="module")
def site(release: Path, entrance: Entrance) -> Iterator[Site]:
    ports = entrance.ports[__name__]
    with ExitStack() as stack:
        upstream = stack.enter_context(StandIn(port=ports.model, respond=_fail).running())
        servers = [
            stack.enter_context(
                helpers.optillm(
                    release,
                    entrance.litellm.port,
                    port=port,
                    guard=at != "bare",
                    approach="auto" if at == "bare" else at,
                    base_models=BASES[at],
                )
            )
            for at, port in ports.optillms.items()
        ]
        helpers.ready(*servers)
        yield Site(entrance.litellm, upstream)


@both_approaches
@every_strategy
@every_status
def test_a_failure_is_an_error_with_the_models_own_reason(
    site: Site, status: int, strategy: str, approach: str
) -> None:
    name = base(status, f"{strategy}-at-{approach}")
    response = site.litellm.ask(f"{strategy}-{name}")
    assert response.status_code == STATUSES[status], response.text
    message = helpers.error_of(response)["message"]
    assert f"the upstream answered {status}" in message
    assert f"the model said {status}" in message
    told = helpers.facts(response)
    assert told["strategy"] == strategy
    assert told["upstream-calls"] == told["upstream-failures"] != "0"
    assert 1 <= site.calls(name) <= MOST_CALLS[strategy]


@both_approaches
@every_status
def test_a_stream_that_fails_is_an_error_too(site: Site, status: int, approach: str) -> None:
    name = base(status, f"streamed-at-{approach}")
    response = site.litellm.ask(f"moa-{name}", stream=True, stream_options={"include_usage": True})
    assert response.status_code == STATUSES[status], response.text
    assert "the upstream answered" in helpers.error_of(response)["message"]


@both_approaches
def test_the_models_retry_after_reaches_the_client(site: Site, approach: str) -> None:
    response = site.litellm.ask(f"plansearch-{base(429, f'streamed-at-{approach}')}")
    assert response.status_code == 429
    assert response.headers[f"{helpers.PREFIX}retry-after"] == "7"


@both_approaches
def test_litellms_own_retries_stay_the_only_ones(site: Site, approach: str) -> None:
    # LiteLLM asks a failing model three times unless told otherwise; nobody multiplies that
    name = base(500, f"retried-at-{approach}")
    response = site.litellm.ask(f"plansearch-{name}")
    assert response.status_code == 502
    assert site.calls(name) <= 3 * MOST_CALLS["plansearch"]


def test_bare_optillm_answers_200_after_many_calls(site: Site) -> None:
    """Defect: `moa` turns an outage into an answer, and its SDK asks three times per call."""
    names = {status: base(status, "bare") for status in STATUSES}
    answers = helpers.ask_at_once(site.litellm, [f"moa-{name}" for name in names.values()])
    for response in answers:
        assert response.status_code == 200, response.text
        assert (
            response.json()["choices"][0]["message"]["content"]
            == "Error: Could not generate any completions"
        )
    calls = {status: site.calls(name) for status, name in names.items()}
    # the SDK does not retry a 401
    assert calls == {500: 12, 401: 4, 429: 12}
