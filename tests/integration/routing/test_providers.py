"""What optictl knows of LiteLLM's provider prefixes, against LiteLLM itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from optictl.litellm import providers

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


def test_every_prefix_is_known(reality: Any) -> None:
    assert set(reality["known"]) == providers.PROVIDERS


def test_those_of_the_openai_shape_send_the_name_without_their_prefix(reality: Any) -> None:
    right = {
        prefix
        for prefix, sent in reality["sent"].items()
        if sent == [["/v1/chat/completions", "moa-x"]]
    }
    assert right == providers.OPENAI_SHAPED
