"""The door's statuses, against what a real LiteLLM does with each (the table in testing/)."""

from __future__ import annotations

import pytest

from optictl.guard import statuses
from testing.litellm_statuses import TREATMENTS


def test_the_cooling_statuses_are_those_of_the_table() -> None:
    """A 5xx says that the service is at fault, and one of two deployments may cool down for it."""
    measured = {s for s, treatment in TREATMENTS.items() if s < 500 and treatment.cools_two}
    assert measured == statuses.COOLING
    assert not {s for s, t in TREATMENTS.items() if t.cools} - statuses.COOLING


@pytest.mark.parametrize("status", [s for s in TREATMENTS if s not in (401, 429)])
def test_a_harmless_status_takes_the_model_from_no_client(status: int) -> None:
    assert statuses.harmless(status) not in statuses.COOLING


@pytest.mark.parametrize("status", [s for s in TREATMENTS if s not in statuses.COOLING])
def test_a_status_that_does_no_harm_stays(status: int) -> None:
    assert statuses.harmless(status) == status


def test_the_key_of_litellm_and_the_limit_of_the_upstream_keep_their_status() -> None:
    assert [statuses.harmless(status) for status in (401, 429)] == [401, 429]
    assert not TREATMENTS[429].cools  # a lone deployment stays
