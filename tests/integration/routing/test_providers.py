"""The names of LiteLLM that optictl knows, against LiteLLM itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from optictl.litellm import judge, providers, read, versions
from testing.kept import LITELLM

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reality(litellm_program: Path) -> Any:
    script = Path(__file__).with_name("ask_providers.py")
    asked = json.dumps(
        sorted(
            providers.OPENAI_SHAPED
            | {"azure", "anthropic", "ollama", "openai_like", "fireworks_ai"}
        )
    )
    command = [str(litellm_program.with_name("python")), str(script), asked]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def assert_known(known: list[str], listed: frozenset[str]) -> None:
    """The lists have every name of every compared LiteLLM, and none that the newest lacks."""
    assert set(known) <= listed
    if LITELLM == versions.NEWEST:
        assert set(known) == listed


def test_the_range_has_this_litellm() -> None:
    assert versions.position(LITELLM) == "compared"


def test_every_prefix_is_known(reality: Any) -> None:
    assert_known(reality["known"], providers.PROVIDERS)


def test_every_router_setting_is_known(reality: Any) -> None:
    assert_known(reality["router"], read.ROUTER_SETTINGS)


def test_every_name_of_a_retry_policy_is_known(reality: Any) -> None:
    assert_known(reality["retries"], judge.RETRY_NAMES)


def test_those_of_the_openai_shape_send_the_name_without_their_prefix(reality: Any) -> None:
    right = {
        prefix
        for prefix, sent in reality["sent"].items()
        if sent == [["/v1/chat/completions", "moa-x"]]
    }
    assert right == providers.OPENAI_SHAPED & set(reality["known"])
