"""The graph alone, on every case: what its author says of it is what the graph says."""

from __future__ import annotations

import pytest

from optictl.deployment.config import Config
from optictl.litellm import graph, read
from optictl.litellm.graph import Graph

from .cases import CASES
from .cases.case import STRATEGIES, Case

ADDRESSES = {
    "OPTILLM": "http://127.0.0.1:4020/v1",
    "LITELLM": "http://127.0.0.1:4000/v1",
    "REAL": "http://127.0.0.1:9999/v1",
    "PORT": "4020",
    "MASTER": "any",
}


def made(case: Case, addresses: dict[str, str] = ADDRESSES, config: Config | None = None) -> Graph:
    """The case's graph, around a deployment with its base models."""
    texts = {
        "config.yaml": case.text,
        **{name.replace("NN", case.name): text for name, text in case.files.items()},
    }
    environment = {name: case.filled(value, addresses) for name, value in case.environment.items()}
    filled = {name: case.filled(text, addresses) for name, text in texts.items()}
    settings = read.load("config.yaml", filled.get, environment)
    config = (config or Config()).model_copy(
        update={
            "model": case.base_models[0],
            "base_models": case.base_models,
            "strategies": STRATEGIES,
        }
    )
    return graph.Graph(settings, config)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_graph_says_what_the_author_says(case: Case) -> None:
    found = made(case)
    assert {arrival.name for _, arrival in found.arrivals if arrival.is_understood} == {
        name.replace("NN", case.name) for name in case.arrivals
    }
    assert bool(found.loops) is case.loops, [graph.written(way) for way, _ in found.loops]


def test_there_are_enough_of_both_kinds() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum(case.loops for case in CASES) >= 20
    assert sum(not case.loops for case in CASES) >= 20
