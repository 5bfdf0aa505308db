"""One LiteLLM for all modules: a start takes 20 s of CPU. Each module starts what is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from optictl.deployment.render import LITELLM_KEY_VARIABLE
from testing import litellm_proxy
from testing.litellm_proxy import Entrance, Ports
from testing.support import PROXY_KEY, free_port, open_directory
from tests.integration.litellm import (
    test_apis,
    test_failures,
    test_loops,
    test_reached,
    test_round_trip,
    test_statuses,
)

_PARTS = (test_apis, test_failures, test_loops, test_reached, test_round_trip, test_statuses)


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
    with open_directory() as directory:
        # as its first lines say: saved beside a configuration, and included there
        (directory / "optillm.yaml").write_text(test_apis.rendered(ports[test_apis.__name__], port))
        config["include"] = [str(directory / "optillm.yaml")]
        environment = {LITELLM_KEY_VARIABLE: PROXY_KEY}
        with litellm_proxy.litellm(litellm_program, config, port, environment) as litellm:
            yield Entrance(litellm, ports)
