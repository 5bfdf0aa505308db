"""Live streams and early ends through a real LiteLLM, in front of the service and behind it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.guard import traces
from testing import litellm_proxy
from testing.litellm_proxy import MASTER_KEY, LiteLLM, base_url
from testing.support import Server, free_port, guarded, wait_until
from tests.integration.guard.slow import Failure, SlowModel

pytestmark = pytest.mark.slow

#: Seconds of a call.
CALL = 1.0
STRATEGIES = ("moa", "plansearch", "self_consistency", "bon")
#: LiteLLM's provider prefixes, either of which may lead to the service.
PREFIXES = ("openai", "custom_openai")


@dataclass
class Site:
    """client -> LiteLLM -> service -> LiteLLM -> slow model."""

    litellm: LiteLLM
    service: Server
    model: SlowModel

    def calm(self) -> None:
        """As if nothing had been asked."""
        wait_until(lambda: not self.model.open_calls, 10, "the calls to end")
        self.model.calls.clear()
        self.model.answer = lambda _body, _number: None
        self.model.seconds = CALL


def _entry(name: str, provider: str, port: int, **parameters: Any) -> dict[str, Any]:
    entry = litellm_proxy.strategy_entry(name, port)
    model = name.partition(":")[2] or name
    entry["litellm_params"] |= {"model": f"{provider}/{model}", **parameters}
    return entry


@pytest.fixture(scope="module")
def site(release: Path, litellm_program: Path) -> Iterator[Site]:
    with SlowModel(CALL).running() as model:
        port = free_port()
        with guarded(
            release,
            base_url(port),
            strategies=STRATEGIES,
            extra=("--progress", "reasoning"),
            environment={"OPENAI_API_KEY": MASTER_KEY},
        ) as service:
            at = int(service.url.rsplit(":", 1)[1].split("/")[0])
            models = [litellm_proxy.model_entry("jerry-xl", model.base_url, num_retries=0)]
            models += [
                _entry(f"{provider}:{strategy}-jerry-xl", provider, at)
                for provider in PREFIXES
                for strategy in STRATEGIES
            ]
            models.append(_entry("brief:plansearch-jerry-xl", "openai", at, timeout=1.5))
            config = litellm_proxy.configuration(models)
            config["general_settings"]["cancel_on_disconnect"] = True
            with litellm_proxy.litellm(litellm_program, config, port) as litellm:
                yield Site(litellm, service, model)


def _stream(site: Site, model: str) -> list[tuple[float, dict[str, Any]]]:
    """The chunks of a streamed answer, each with the seconds until it came."""
    body = {"model": model, "messages": [{"role": "user", "content": "q"}], "stream": True}
    since, chunks = time.monotonic(), []
    with httpx.stream(
        "POST",
        f"{base_url(site.litellm.port)}/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {MASTER_KEY}"},
        timeout=60,
    ) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: {"):
                chunks.append((time.monotonic() - since, json.loads(line[6:])))
    return chunks


def _deltas(chunks: list[tuple[float, dict[str, Any]]], name: str) -> list[tuple[float, str]]:
    return [
        (when, choice["delta"][name])
        for when, chunk in chunks
        for choice in chunk.get("choices", [])
        if choice["delta"].get(name)
    ]


@pytest.mark.parametrize("provider", PREFIXES)
def test_the_final_text_comes_through_as_it_is_written(provider: str, site: Site) -> None:
    site.calm()
    chunks = _stream(site, f"{provider}:moa-jerry-xl")
    texts = _deltas(chunks, "content")
    assert "".join(text for _, text in texts).endswith("of the slow model to 2 messages")
    assert texts[-1][0] - texts[0][0] > 0.6 * CALL
    finishes = [one.get("finish_reason") for _, chunk in chunks for one in chunk["choices"]]
    assert [one for one in finishes if one] == ["stop"]


@pytest.mark.parametrize("provider", PREFIXES)
def test_the_steps_come_through_as_reasoning(provider: str, site: Site) -> None:
    site.calm()
    lines = "".join(
        text for _, text in _deltas(_stream(site, f"{provider}:bon-jerry-xl"), "reasoning_content")
    ).splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        "candidate 3 of 3",
        "rating 1 of 3",
        "rating 2 of 3",
        "rating 3 of 3",
    ]


@pytest.mark.parametrize("provider", PREFIXES)
def test_litellm_raises_an_error_in_the_middle_of_a_text(provider: str, site: Site) -> None:
    site.calm()
    site.model.answer = lambda body, _number: (
        Failure(500, {"error": {"message": "the model fell over"}}, after=3)
        if traces.purpose("moa", body["messages"]) == "final"
        else "a text"
    )
    chunks = _stream(site, f"{provider}:moa-jerry-xl")
    assert _deltas(chunks, "content")
    errors = [chunk["error"] for _, chunk in chunks if "error" in chunk]
    assert len(errors) == 1
    choices = [one for _, chunk in chunks for one in chunk.get("choices", [])]
    assert not [one for one in choices if one.get("finish_reason")]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("strategy", "calls"), [("plansearch", 1), ("self_consistency", 5), ("moa", 1)]
)
def test_the_end_of_a_client_reaches_the_model(
    strategy: str, calls: int, is_streamed: bool, site: Site
) -> None:
    """The client of LiteLLM leaves: no further call starts, and open ones are closed."""
    site.calm()
    site.model.seconds = 8.0
    body = {
        "model": f"openai:{strategy}-jerry-xl",
        "messages": [{"role": "user", "content": "q"}],
        "stream": is_streamed,
    }
    client = httpx.Client(timeout=httpx.Timeout(60, read=2.0))
    headers = {"Authorization": f"Bearer {MASTER_KEY}"}
    with client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{base_url(site.litellm.port)}/chat/completions", json=body, headers=headers)
    assert len(site.model.calls) == calls
    wait_until(lambda: not site.model.open_calls, 3, "the calls to be closed")
    assert all(call.left for call in site.model.calls)
    time.sleep(1)
    assert len(site.model.calls) == calls
    assert site.service.get("/guard/state").json()["in_flight"] == []


def test_a_timeout_of_litellm_ends_the_request(site: Site) -> None:
    site.calm()
    site.model.seconds = 8.0
    response = site.litellm.ask("brief:plansearch-jerry-xl")
    assert response.status_code == 408
    wait_until(lambda: not site.model.open_calls, 3, "the call to be closed")
    time.sleep(1)
    assert len(site.model.calls) == 1
    trace = site.service.get("/guard/traces").json()["traces"][0]
    assert (trace["status"], trace["code"]) == (499, "client_gone")
