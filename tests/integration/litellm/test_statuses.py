"""What a real LiteLLM does with a status of its only deployment: the table in testing/.

A deployment on cooldown is not asked: all other clients get 429. One client must not cause that, so
the guard uses the statuses after which LiteLLM does not do it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from optictl.guard import responses
from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing import litellm_proxy as helpers
from testing.litellm_proxy import Entrance, LiteLLM, Ports
from testing.litellm_statuses import TREATMENTS, Treatment

pytestmark = pytest.mark.slow

OPTILLMS = ()
#: Those of the door, and one of each kind that LiteLLM treats in the same way; each takes 2 s.
#: OPTICTL_TEST_STATUSES=all tries the whole table.
_EVERY_RUN = (
    400,
    401,
    402,
    403,
    404,
    408,
    413,
    415,
    418,
    421,
    422,
    429,
    431,
    499,
    500,
    502,
    503,
    504,
)
STATUSES = tuple(TREATMENTS) if os.environ.get("OPTICTL_TEST_STATUSES") == "all" else _EVERY_RUN
#: Failures in a row, so that each of two deployments has LiteLLM's minimum of five.
_MANY = 30
_FAIL = "Please fail."


def models(ports: Ports) -> list[dict[str, Any]]:
    """LiteLLM's entries for this module: for each status one deployment per question."""
    entries = []
    for status in STATUSES:
        for seconds, kind in enumerate(("alone", "retried", "two", "two", "rendered")):
            entry = helpers.strategy_entry(f"moa-{kind}-{status}", ports.model)
            parameters = entry["litellm_params"]
            parameters["timeout"] = 60 + seconds  # equal entries would be one deployment
            if kind == "retried":
                del parameters["num_retries"], parameters["max_retries"]
            if kind == "rendered":
                parameters["cooldown_time"] = 0  # as `optictl render litellm` prints it
            entries.append(entry)
    return entries


def _answer(seen: Seen) -> Reply | None:
    """The deployment: it fails with the status in its name, if the question says so."""
    if seen.body is None:
        return None
    if _FAIL not in str(seen.body["messages"]):
        return Reply(body=completion(seen.body))
    status = int(seen.model.rpartition("-")[2])
    body = responses.error_body(status, "some_code", "the request was refused")
    return Reply(status, body, {"Retry-After": "1"} if status == 503 else {})


@dataclass
class Site:
    """LiteLLM and the deployments."""

    litellm: LiteLLM
    upstream: StandIn

    def treatment(self, status: int) -> Treatment:
        """What LiteLLM does with a status."""
        first = self.litellm.ask(f"moa-alone-{status}", _FAIL)
        cools = self._is_cooled(f"moa-alone-{status}", 8)
        cools_two = self._is_cooled(f"moa-two-{status}", _MANY)
        name = f"moa-retried-{status}"
        self.litellm.ask(name, _FAIL, timeout=120)
        tries = sum(seen.model == name for seen in self.upstream.seen)
        return Treatment(first.status_code, tries, cools, cools_two)

    def _is_cooled(self, name: str, failures: int) -> bool:
        """Whether LiteLLM does not ask a deployment that would answer, after failures."""
        for _ in range(failures):
            if "cooldown" in self.litellm.ask(name, _FAIL).text:
                return True
            time.sleep(0.05)  # LiteLLM enters a failure after it has answered
        time.sleep(0.2)
        response = self.litellm.ask(name)
        assert response.status_code == 200 or "cooldown" in response.text, response.text
        return response.status_code != 200


@pytest.fixture(scope="module")
def measured(entrance: Entrance) -> Iterator[dict[int, Treatment]]:
    ports = entrance.ports[__name__]
    with StandIn(port=ports.model, respond=_answer).running() as upstream:
        site = Site(entrance.litellm, upstream)
        with ThreadPoolExecutor(8) as pool:
            yield dict(zip(STATUSES, pool.map(site.treatment, STATUSES), strict=True))


@pytest.mark.parametrize("status", STATUSES)
def test_a_rendered_entry_never_cools_down(
    measured: dict[int, Treatment], entrance: Entrance, status: int
) -> None:
    """`measured`: the deployments run."""
    for _ in range(2):
        entrance.litellm.ask(f"moa-rendered-{status}", _FAIL)
        time.sleep(0.1)
    assert entrance.litellm.ask(f"moa-rendered-{status}").status_code == 200


@pytest.mark.parametrize("status", STATUSES)
def test_litellm_treats_a_status_as_the_table_says(
    measured: dict[int, Treatment], status: int
) -> None:
    assert measured[status] == TREATMENTS[status]
