"""Which spellings of OptiLLM's address arrive from a real LiteLLM, and what routing.reached says.

OptiLLM's stand-in listens on 127.0.0.1 only, as OptiLLM does.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml

from optictl.deployment.config import Config
from optictl.deployment.config_sections import Listen
from optictl.host import network
from optictl.litellm import judge, read
from optictl.litellm.graph import Graph
from optictl.proof.standin import StandIn
from testing import litellm_proxy as helpers
from testing.litellm_proxy import Entrance, Ports

pytestmark = pytest.mark.slow

OPTILLMS = ()
#: A spelling of an address, by a word for the model's name. PORT is OptiLLM's.
SPELLINGS = {
    "plain": "http://127.0.0.1:PORT/v1",
    "slash": "http://127.0.0.1:PORT/v1/",
    "name": "http://localhost:PORT/v1",
    "any": "http://0.0.0.0:PORT/v1",
    "mapped": "http://[::ffff:127.0.0.1]:PORT/v1",
    "six": "http://[::1]:PORT/v1",
    "second": "http://127.0.0.2:PORT/v1",
    "wrong-port": "http://127.0.0.1:9/v1",
    "tls": "https://127.0.0.1:PORT/v1",
    "no-scheme": "127.0.0.1:PORT/v1",
    "shell": "${OPTILLM_URL}/v1",
    "docker": "http://host.docker.internal:PORT/v1",
    "network": "http://ADDRESS:PORT/v1",
}
BASES = tuple(f"{word}-xl" for word in SPELLINGS)


def _address() -> str:
    """An address of this machine on its network, or one that no machine has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "192.0.2.1"


def models(ports: Ports) -> list[dict[str, Any]]:
    """LiteLLM's entries for this module: the same strategy at each spelling."""
    entries = []
    for base, spelling in zip(BASES, SPELLINGS.values(), strict=True):
        entry = helpers.strategy_entry(f"moa-{base}", ports.model)
        url = spelling.replace("PORT", str(ports.model)).replace("ADDRESS", _address())
        entry["litellm_params"] |= {"api_base": url, "timeout": 5}
        entries.append(entry)
    return entries


def graph(ports: Ports) -> Graph:
    text = yaml.safe_dump({"model_list": models(ports)})
    config = Config(
        listen=Listen(port=ports.model), model=BASES[0], base_models=BASES, strategies=("moa",)
    )
    settings = read.load("litellm.yaml", {"litellm.yaml": text}.get, {})
    names = network.names_of("127.0.0.1")
    return Graph(settings, config, network.local_names(), listening=names)


@pytest.fixture(scope="module")
def arrived(entrance: Entrance) -> Iterator[set[str]]:
    """The models for which a request of LiteLLM's client arrived."""
    ports = entrance.ports[__name__]
    with ExitStack() as stack:
        names = tuple(f"moa-{base}" for base in BASES)
        standin = stack.enter_context(StandIn(names, port=ports.model).running())
        helpers.ask_at_once(entrance.litellm, names)
        yield {seen.model for seen in standin.seen}


@pytest.mark.parametrize("word", SPELLINGS)
def test_a_spelling_is_judged_as_litellm_uses_it(
    entrance: Entrance, arrived: set[str], word: str
) -> None:
    judged = judge.arrived(graph(entrance.ports[__name__]))
    assert (f"moa-{word}-xl" in judged) == (f"moa-{word}-xl" in arrived)


def test_some_arrive_and_some_do_not(arrived: set[str]) -> None:
    assert {"moa-plain-xl", "moa-name-xl"} <= arrived
    assert not arrived & {"moa-wrong-port-xl", "moa-tls-xl", "moa-second-xl", "moa-network-xl"}


def test_each_that_does_not_arrive_is_named_with_its_line(
    entrance: Entrance, arrived: set[str]
) -> None:
    faults = list(judge.reached(graph(entrance.ports[__name__])))
    named = {fault.found.partition(" ")[0] for fault in faults if fault.status == "fail"}
    assert named == {f"moa-{base}" for base in BASES} - arrived
    assert all("litellm.yaml:" in fault.found for fault in faults)
