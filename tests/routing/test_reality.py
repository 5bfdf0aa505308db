"""The graph against a real LiteLLM: for every name of every case, what arrives at OptiLLM and what comes back there.

As few LiteLLMs as possible serve all cases, because each takes long to start: those whose settings are about every model
have one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from optictl.config import Config
from optictl.litellm.graph import Arrival, Graph, Request

from . import reality
from .cases import CASES, Case
from .reality import Passes, Site
from .test_graph import made

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(litellm_program: Path) -> Iterator[Callable[[str], Site]]:
    """The LiteLLM of a case's `process`, started when it is first asked for; one at a time."""
    running: dict[str, Site] = {}
    with ExitStack() as stack:

        def get(process: str) -> Site:
            if process not in running:
                stack.close()
                running.clear()
                cases = [case for case in CASES if case.process == process]
                running[process] = stack.enter_context(reality.running(litellm_program, cases))
            return running[process]

        yield get


def expected(graph: Graph, name: str) -> Passes:
    """What the graph says of one name."""

    def reached(start: str) -> list[Arrival]:
        return [to for _, to in graph.walk(Request(start, start)) if isinstance(to, Arrival) and to.is_understood]

    first = reached(name)
    back = {again.name for arrival in first if (base := graph.base_of(arrival)) for again in reached(base)}
    return Passes({arrival.name for arrival in first} | back, back)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_requests_go_where_the_graph_says(
    case: Case, site: Callable[[str], Site], record_property: Callable[[str, object], None]
) -> None:
    where = site(case.process)
    config = Config().moved(where.optillm.port, f"http://127.0.0.1:{where.litellm.port}/v1")
    graph = made(case, dict(where.addresses), config)
    differences = {}
    came_back = False
    for name in graph.names:
        wanted = expected(graph, name)
        found = where.ask(name, wanted)
        came_back = came_back or bool(found.back)
        if found != wanted:
            differences[name] = (wanted, found)
    assert differences == {}
    assert came_back is case.loops
    record_property("compared", f"{case.name}: {len(graph.names)} names, {'loops' if came_back else 'does not loop'}")
