"""Fixtures: a real LiteLLM proxy, installed once into a venv of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import kept_venv

VERSION = "1.106.2"


@pytest.fixture(scope="session")
def litellm_program() -> Path:
    """The `litellm` program of a venv that is kept between sessions, keyed by LiteLLM's version."""
    return kept_venv(f"litellm-{VERSION}", f"litellm[proxy]=={VERSION}") / "bin/litellm"
