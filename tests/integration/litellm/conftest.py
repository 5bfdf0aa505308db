"""One LiteLLM for all modules: a start takes 20 s of CPU. Each module starts what is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing import litellm_proxy
from testing.litellm_proxy import Entrance, Ports
from testing.support import free_port
from tests.integration.litellm import test_failures, test_loops, test_round_trip, test_statuses

_PARTS = (test_failures, test_loops, test_round_trip, test_statuses)


@pytest.fixture(scope="session")
def entrance(litellm_program: Path) -> Iterator[Entrance]:
    """LiteLLM with the models of every module, none of which has a name of another's."""
    port = free_port()
    ports = {
        part.__name__: Ports({name: free_port() for name in part.OPTILLMS}, free_port())
        for part in _PARTS
    }
    models = [entry for part in _PARTS for entry in part.models(ports[part.__name__])]
    config = litellm_proxy.configuration(
        models, router_settings={"fallbacks": test_loops.FALLBACKS}
    )
    with litellm_proxy.litellm(litellm_program, config, port) as litellm:
        yield Entrance(litellm, ports)
