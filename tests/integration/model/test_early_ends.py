"""A client that leaves frees the slots of llama.cpp."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.support import Server, guarded, wait_until
from tests.integration.guard.helpers import send

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(release: Path, model_url: str) -> Iterator[Server]:
    """The service, directly in front of llama.cpp."""
    with guarded(
        release, model_url, strategies=("plansearch", "self_consistency", "re2")
    ) as server:
        yield server


def busy_slots(model_url: str) -> int:
    """How many requests llama.cpp works on."""
    text = httpx.get(f"{model_url.removesuffix('/v1')}/metrics", timeout=30).text
    found = re.search(r"^llamacpp:requests_processing (\d+)", text, re.M)
    assert found is not None, text
    return int(found[1])


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("strategy", ["plansearch", "self_consistency", "re2"])
def test_the_slots_are_free_within_a_second(
    strategy: str, is_streamed: bool, service: Server, model_url: str
) -> None:
    _leave(service, strategy, is_streamed)
    left = time.monotonic()
    wait_until(lambda: not busy_slots(model_url), 3, "the slots to be free")
    assert time.monotonic() - left < 3  # it looks after each token, on a busy machine
    assert service.get("/guard/state").json()["in_flight"] == []
    newest = service.get("/guard/traces").json()["traces"][0]
    assert newest["code"] == "client_gone", service.get(f"/guard/traces/{newest['trace']}").text


def _leave(service: Server, strategy: str, is_streamed: bool) -> None:
    """Ask for a long text, and leave while the model writes it."""
    text = "Write a very long story about a river."
    fields = {"max_tokens": 3000, "stream": is_streamed}
    with send(service, f"{strategy}-jerry-xl", text, **fields):
        time.sleep(1.5)
