"""Behind a LiteLLM with a response cache, a strategy gets several samples and no copies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing import litellm_proxy
from testing.support import Server, free_port, guarded

pytestmark = pytest.mark.slow


@dataclass
class Cached:
    """A LiteLLM with a cache, between a model and two guards: with and without the fix."""

    upstream: StandIn
    fixed: Server
    plain: Server


@pytest.fixture(scope="module")
def cached(release: Path, litellm_program: Path) -> Iterator[Cached]:
    numbers = itertools.count()

    def respond(seen: Seen) -> Reply | None:
        if seen.body is None:
            return None
        return Reply(body=completion(seen.body, f"Sample {next(numbers)}. The answer is 4."))

    upstream, port = StandIn(respond=respond), free_port()
    config = litellm_proxy.configuration(
        [litellm_proxy.model_entry("jerry-xl", upstream.base_url)],
        litellm_settings={"cache": True, "cache_params": {"type": "local"}},
    )
    url, key = litellm_proxy.base_url(port), litellm_proxy.MASTER_KEY
    environment = {"OPENAI_API_KEY": key}
    with ExitStack() as stack:
        stack.enter_context(upstream.running())
        stack.enter_context(litellm_proxy.litellm(litellm_program, config, port))
        fixed = stack.enter_context(guarded(release, url, environment=environment))
        without = "samples,budgets,ratings,votes,thinking"
        plain = stack.enter_context(
            guarded(
                release,
                url,
                environment=environment,
                # side by side they would come before the first one is in the cache
                extra=["--effect", without, "--parallel-calls", "1"],
            )
        )
        yield Cached(upstream, fixed, plain)


def ask(server: Server, question: str) -> httpx.Response:
    response = server.ask("self_consistency-jerry-xl", question)
    assert response.status_code == 200, response.text
    return response


def test_copies_from_the_cache_are_told(cached: Cached) -> None:
    before = len(cached.upstream.calls())
    answer = ask(cached.plain, "What is 2 + 2?")
    assert len(cached.upstream.calls()) == before + 1
    assert answer.headers["x-optillm-samples"] == "1/5"
    assert answer.headers["x-optillm-degraded"] == "candidates_identical"


def test_with_the_fix_every_sample_is_a_new_one(cached: Cached) -> None:
    before = len(cached.upstream.calls())
    answer = ask(cached.fixed, "What is 3 + 1?")
    sent = cached.upstream.calls()[before:]
    assert len(sent) == 5
    assert not any("cache" in (seen.body or {}) for seen in sent)  # LiteLLM keeps it to itself
    assert answer.headers["x-optillm-samples"] == "5/5"
    assert answer.headers["x-optillm-effect"] == "full"
    assert "caches" in answer.headers["x-optillm-fixed"]
