"""The graph against a real LiteLLM: for every name, what arrives at OptiLLM and what comes back.

As few LiteLLMs as possible serve all cases, because each takes long to start: cases whose settings
are about every model have a separate one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from optictl.checks import catalog
from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.facts.deployment import Deployment
from optictl.litellm.graph import Arrival, Graph, Request
from optictl.results import Result
from testing.kept import LITELLM
from testing.litellm_proxy import MASTER_KEY

from . import reality
from .cases import CASES
from .cases.case import Case
from .reality import Passes, Site
from .test_graph import made

pytestmark = pytest.mark.slow

#: Side by side with those of the same LiteLLM, so that each is started once.
IN_ORDER = sorted(CASES, key=lambda case: case.process)
#: What was compared and found alike: case -> number of names, whether it loops.
COMPARED: dict[str, tuple[int, bool]] = {}


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
        return [
            to
            for _, to in graph.walk(Request(start, start))
            if isinstance(to, Arrival) and to.is_understood
        ]

    first = reached(name)
    back = {
        again.name
        for arrival in first
        if (base := graph.base_of(arrival))
        for again in reached(base)
    }
    return Passes({arrival.name for arrival in first} | back, back)


@pytest.mark.parametrize("case", IN_ORDER, ids=lambda case: case.name)
def test_requests_go_where_the_graph_says(case: Case, site: Callable[[str], Site]) -> None:
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
    COMPARED[case.name] = len(graph.names), case.loops


def test_the_running_litellm_tells_its_entries(site: Callable[[str], Site], tmp_path: Path) -> None:
    """Its /v1/model/info as it really is: with the master key, and with a wrong one."""
    where = site(IN_ORDER[-1].process)  # which is running
    place = paths.system(tmp_path)
    config = Config().moved(where.optillm.port, f"http://127.0.0.1:{where.litellm.port}/v1")
    place.etc.mkdir(parents=True)
    place.config.write_text(
        f"listen: {{port: {config.listen.port}}}\n"
        f"upstream: {{base_url: '{config.upstream.base_url}'}}\n"
        "strategies: [moa]\nbase_models: [jerry-xl]\n"
    )

    def check(key: str) -> dict[str, Result]:
        place.env.write_text(f"OPENAI_API_KEY={key}\n")
        return {
            r.id: r for r in catalog.run(catalog.select(["routing", "litellm"]), Deployment(place))
        }

    results = check(MASTER_KEY)
    assert results["litellm.version"].status == "pass"
    assert results["litellm.version"].found == f"LiteLLM {LITELLM}"
    # that its entries are understood: names, addresses and numbers arrive as they were configured
    name = IN_ORDER[-1].name
    assert results["routing.base-served"].status == "fail"
    assert (
        f"moa-{name}-jerry -> OptiLLM: the base model '{name}-jerry' is not in base_models"
        in results["routing.base-served"].found
    )
    # many findings of one kind are one finding, at the running LiteLLM's own address
    retries = results["routing.retries"]
    assert retries.status == "warn"
    assert f"entries (http://127.0.0.1:{where.litellm.port}/v1, entries " in retries.found
    assert "they are tried up to 3 times: num_retries is 2 by default" in retries.found
    # until 1.108 it listed the names that a wildcard stands for; from 1.110 on the wildcard itself
    assert any(
        text in results["routing.enabled"].found
        for text in ("entries of the running LiteLLM checked too", f"({config.upstream.base_url} ")
    )
    # without a database it cannot look a foreign key up
    results = check("sk-wrong")
    assert results["litellm.version"].status == "pass"  # no key is needed
    refused = results["routing.no-loop"]
    assert refused.status == "skip"
    assert "the running LiteLLM did not list its models: " in refused.found


def test_how_many_were_compared(record_property: Callable[[str, object], None]) -> None:
    if len(COMPARED) < len(CASES):
        pytest.skip("only a part of the cases was asked for, or some differ")
    looping = sum(loops for _, loops in COMPARED.values())
    names = sum(number for number, _ in COMPARED.values())
    record_property(
        "said",
        f"routing: {len(COMPARED)} configurations ({looping} loop, "
        f"{len(COMPARED) - looping} do not), {names} names: "
        f"the graph and LiteLLM {LITELLM} agree",
    )
    assert looping >= 20
    assert len(COMPARED) - looping >= 20
