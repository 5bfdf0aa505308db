"""One LiteLLM for all modules: it takes twenty seconds of CPU to start. What each is in front of starts with the module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import free_port

from . import helpers, test_failures, test_loops, test_round_trip
from .helpers import Entrance, Ports


@pytest.fixture(scope="session")
def entrance(litellm_program: Path) -> Iterator[Entrance]:
    """LiteLLM with the models of every module, none of which has a name of another's."""
    port = free_port()
    ports = {
        part.__name__: Ports({name: free_port() for name in part.OPTILLMS}, free_port())
        for part in (test_failures, test_loops, test_round_trip)
    }
    models = [
        *test_failures.models(ports[test_failures.__name__]),
        *test_loops.models(ports[test_loops.__name__]),
        *test_round_trip.models(ports[test_round_trip.__name__]),
    ]
    config = helpers.configuration(models, router_settings={"fallbacks": test_loops.FALLBACKS})
    with helpers.litellm(litellm_program, config, port) as litellm:
        yield Entrance(litellm, ports)
