"""client -> LiteLLM -> optictl's service -> LiteLLM -> a recorder -> llama.cpp and a real model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optictl.demo import model
from testing import litellm_proxy, recorder
from testing.kept import model_directory
from testing.litellm_proxy import LiteLLM, OptiLLM
from testing.recorder import Recorder
from testing.support import STRATEGIES, free_port, open_directory

#: The most tokens of a completion, also of a critique or a rating: it bounds the time of the tests.
MOST_TOKENS = 48


@dataclass
class Site:
    """The whole way. One LiteLLM is in front of the service and behind it."""

    litellm: LiteLLM
    service: OptiLLM
    recorder: Recorder


@pytest.fixture(scope="session")
def model_url() -> Iterator[str]:
    """The base URL of llama.cpp's server."""
    with (
        open_directory() as directory,
        model.serving(model_directory(), "jerry-xl", directory / "model.log") as url,
    ):
        yield url


@pytest.fixture(scope="session")
def site(release: Path, litellm_program: Path, model_url: str) -> Iterator[Site]:
    ports = {name: free_port() for name in ("litellm", "service", "recorder")}
    with (
        recorder.recording(model_url, ports["recorder"], MOST_TOKENS) as recorded,
        litellm_proxy.optillm(release, ports["litellm"], port=ports["service"]) as service,
        litellm_proxy.litellm(
            litellm_program, litellm_proxy.configuration(_models(ports)), ports["litellm"]
        ) as litellm,
    ):
        litellm_proxy.ready(service)
        yield Site(litellm, service, recorded)


def _models(ports: dict[str, int]) -> list[dict[str, Any]]:
    """LiteLLM's entries. Every request asks for prompts and answers in its trace."""
    entries = [
        litellm_proxy.strategy_entry(f"{strategy}-jerry-xl", ports["service"])
        for strategy in STRATEGIES
    ]
    for entry in entries:
        entry["litellm_params"]["extra_headers"] = {"x-optillm-trace-content": "1"}
    url = litellm_proxy.base_url(ports["recorder"])
    return [litellm_proxy.model_entry("jerry-xl", url), *entries]
