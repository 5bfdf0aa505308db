"""A client that leaves frees the slots of llama.cpp, which computes for nobody otherwise."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.support import STRATEGIES, Server, guarded, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(release: Path, model_url: str) -> Iterator[Server]:
    """The service, directly in front of llama.cpp."""
    with guarded(release, model_url) as server:
        yield server


def busy_slots(model_url: str) -> int:
    """How many requests llama.cpp works on."""
    text = httpx.get(f"{model_url.removesuffix('/v1')}/metrics", timeout=30).text
    found = re.search(r"^llamacpp:requests_processing (\d+)", text, re.M)
    assert found is not None, text
    return int(found[1])


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_slots_are_free_within_a_second(
    strategy: str, is_streamed: bool, service: Server, model_url: str
) -> None:
    body = {
        "model": f"{strategy}-jerry-xl",
        "messages": [{"role": "user", "content": "Write a very long story about a river."}],
        "max_tokens": 3000,
        "stream": is_streamed,
    }
    headers = {"Authorization": f"Bearer {service.key}"}
    client = httpx.Client(timeout=httpx.Timeout(60, read=1.5))
    with client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{service.url}/chat/completions", json=body, headers=headers)
    left = time.monotonic()
    # it looks at its connections after each batch, which takes a moment on a busy machine
    wait_until(lambda: not busy_slots(model_url), 3, "the slots to be free")
    assert time.monotonic() - left < 3
    assert service.get("/guard/state").json()["in_flight"] == []
    newest = service.get("/guard/traces").json()["traces"][0]
    assert newest["code"] == "client_gone"
