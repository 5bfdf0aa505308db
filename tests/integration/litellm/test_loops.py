"""Routing loops through a real LiteLLM: OptiLLM's own upstream call comes back to its door.

Three ways to build one by mistake, each with one guarded OptiLLM for either approach:
`around` routes a base model to OptiLLM as it is, `twice` routes it there with a strategy's
prefix, `fallback` lets a failing base model fall back to a strategy model. One bare
OptiLLM shows what they do without the guard; it is started for one test and stopped,
because nothing else ends a loop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing import litellm_proxy as helpers
from testing.litellm_proxy import Entrance, LiteLLM, OptiLLM, Ports
from testing.support import STRATEGIES

pytestmark = pytest.mark.slow

APPROACHES = ("proxy", "auto")
LOOPS = ("around", "twice", "fallback")
#: Seconds. A loop takes about 0.15 on an idle machine; without a guard it never ends.
SOON = 5.0
#: A strategy's calls that may be on their way when the first one comes back to the door. The guard
#: closes them, but a LiteLLM without `cancel_on_disconnect` answers on: each falls back once more.
SIBLINGS = 4

both_approaches = pytest.mark.parametrize("approach", APPROACHES)


def base(kind: str, approach: str) -> str:
    """The base model of one loop at one OptiLLM: a loop must come back where it began."""
    return f"{kind}-at-{approach}-xl"


BASES = tuple(
    base(kind, at)
    for kind in (*LOOPS, "midway", "patient", "healthy", "across")
    for at in (*APPROACHES, "bare")
)
FALLING_BACK = tuple(name for name in BASES if name.startswith(("fallback", "midway", "patient")))


def _respond(seen: Seen) -> Reply | None:
    """Models behind LiteLLM: one fails always, one after a good first call, one is slow."""
    failure = Reply(500, {"error": {"message": "the model is down", "code": "500"}})
    if seen.model.startswith(("fallback", "patient")):
        return failure
    if (
        seen.model.startswith("midway")
        and seen.body
        and seen.body.get("n") != 3
        and seen.body.get("max_tokens") != 1
    ):
        return failure
    if seen.model.startswith("healthy") and seen.body:
        return Reply(body=completion(seen.body), delay=1)
    return None


@dataclass
class Site:
    """LiteLLM, one guarded OptiLLM for each approach, and the port of the bare one."""

    litellm: LiteLLM
    upstream: StandIn
    doors: dict[str, OptiLLM]
    entrance: int
    bare_port: int

    def passes(self) -> int:
        return sum(len(door.passes()) for door in self.doors.values())


OPTILLMS = (*APPROACHES, "bare")
#: LiteLLM's own, of this module's models only.
FALLBACKS = [{name: [f"moa-{name}"]} for name in FALLING_BACK]


def models(ports: Ports) -> list[dict[str, Any]]:
    """LiteLLM's entries for this module."""
    once = {"num_retries": 0, "max_retries": 0}
    upstream, entries = ports.model_url, []
    for at, port in ports.optillms.items():
        entries += [
            helpers.strategy_entry(f"{s}-{name}", port)
            for s in STRATEGIES
            for name in BASES
            if f"-{at}-" in name
        ]
        entries += [
            helpers.strategy_entry(base("around", at), port),
            helpers.strategy_entry(base("twice", at), port, f"moa-{base('twice', at)}"),
            # from each OptiLLM to the next one
            helpers.strategy_entry(
                base("across", at),
                ports.optillms["auto" if at == "proxy" else "proxy"],
                f"moa-{base('across', at)}",
            ),
            helpers.model_entry(base("healthy", at), upstream),
            helpers.model_entry(base("fallback", at), upstream, **once),
            helpers.model_entry(base("midway", at), upstream, **once),
            # with LiteLLM's own retries, as it does without a word about them
            helpers.model_entry(base("patient", at), upstream),
        ]
    return entries


@pytest.fixture(scope="module")
def site(release: Path, entrance: Entrance) -> Iterator[Site]:
    litellm, ports = entrance.litellm, entrance.ports[__name__]
    with ExitStack() as stack:
        upstream = stack.enter_context(
            StandIn(models=BASES, port=ports.model, respond=_respond).running()
        )
        doors = {
            at: stack.enter_context(
                helpers.optillm(
                    release, litellm.port, port=ports.optillms[at], approach=at, base_models=BASES
                )
            )
            for at in APPROACHES
        }
        helpers.ready(*doors.values())
        # LiteLLM's first request takes a second of its own; this one reaches no OptiLLM
        assert litellm.ask(base("healthy", "bare")).status_code == 200
        yield Site(litellm, upstream, doors, litellm.port, ports.optillms["bare"])


def _assert_loop_named(response: httpx.Response) -> None:
    assert response.status_code == 421, response.text
    assert "routing loop" in helpers.error_of(response)["message"]


@both_approaches
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_a_loop_ends_within_a_second(site: Site, loop: str, approach: str, stream: bool) -> None:
    before = site.passes()
    for strategy in STRATEGIES:
        started = time.monotonic()
        response = site.litellm.ask(f"{strategy}-{base(loop, approach)}", stream=stream, timeout=30)
        seconds = time.monotonic() - started
        _assert_loop_named(response)
        assert seconds < SOON, strategy
    time.sleep(0.5)
    # self_consistency is the one that sends its first calls side by side
    assert helpers.settled(site.passes) - before <= 2 * len(STRATEGIES) + SIBLINGS


@both_approaches
@pytest.mark.parametrize("strategy", ["moa", "bon"])
def test_a_model_that_begins_to_fail_midway_loops_no_more(
    site: Site, strategy: str, approach: str
) -> None:
    # the first call samples three answers; the next one fails and falls back to a strategy
    before, started = site.passes(), time.monotonic()
    response = site.litellm.ask(f"{strategy}-{base('midway', approach)}", timeout=30)
    seconds = time.monotonic() - started
    _assert_loop_named(response)
    assert int(helpers.facts(response)["upstream-completions"]) >= 3
    assert site.passes() - before <= 2
    assert seconds < SOON


@both_approaches
def test_litellms_own_retries_do_not_widen_a_loop(site: Site, approach: str) -> None:
    # LiteLLM tries the failing model three times, which takes seconds, before it falls back
    before = site.passes()
    _assert_loop_named(site.litellm.ask(f"moa-{base('patient', approach)}", timeout=60))
    assert site.passes() - before <= 2


@both_approaches
def test_many_loops_at_once_all_end(site: Site, approach: str) -> None:
    models = [f"{strategy}-{base(loop, approach)}" for loop in LOOPS for strategy in STRATEGIES]
    before = site.passes()
    for response in helpers.ask_at_once(site.litellm, models):
        _assert_loop_named(response)
    # its samples are sent side by side: some are on their way when the first one comes back
    samples = sum(model.startswith("self_consistency") for model in models) * SIBLINGS
    time.sleep(1)
    assert helpers.settled(site.passes) - before <= 2 * len(models) + samples


@both_approaches
def test_a_loop_ends_no_other_request(site: Site, approach: str) -> None:
    # both at their first call, at the same time, through the same process
    with ThreadPoolExecutor(1) as pool:
        before = len(site.upstream.seen)
        bystander = pool.submit(site.litellm.ask, f"moa-{base('healthy', approach)}")
        deadline = time.monotonic() + 10
        while len(site.upstream.seen) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        looping = site.litellm.ask(f"moa-{base('around', approach)}", timeout=30)
        assert not bystander.done()
        _assert_loop_named(looping)
        assert bystander.result().status_code == 200, bystander.result().text


def test_a_loop_across_two_processes_ends(site: Site) -> None:
    """During an upgrade two processes serve; neither knows what the other waits for.

    Each of the first one's calls is a request to the second, whose own call comes back to
    itself and is refused: at most two passes for every call of the first.
    """
    before, started = site.passes(), time.monotonic()
    response = site.litellm.ask(f"moa-{base('across', 'proxy')}", timeout=30)
    assert response.status_code in (421, 502)
    assert time.monotonic() - started < 5
    calls = int(helpers.facts(response)["upstream-calls"])
    assert site.passes() - before <= 1 + 2 * calls
    helpers.settled(site.passes)


@pytest.mark.parametrize("loop", LOOPS)
def test_bare_optillm_goes_round_and_round(site: Site, release: Path, loop: str) -> None:
    """Defect: nothing ends a loop, not even that the client has gone."""
    with helpers.optillm(
        release, site.entrance, port=site.bare_port, guard=False, approach="auto"
    ) as door:
        helpers.ready(door)
        with pytest.raises(httpx.ReadTimeout):
            site.litellm.ask(f"moa-{base(loop, 'bare')}", timeout=3)
        passes = door.bare_passes()
        assert passes > 5
        deadline = time.monotonic() + 10
        while door.bare_passes() == passes and time.monotonic() < deadline:
            time.sleep(0.1)
        assert door.bare_passes() > passes
