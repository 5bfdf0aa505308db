"""The walk on Debian 13, with its Python; `python -m testing.systems` takes it on other systems."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testing.systems import walk
from testing.systems.trees import tree

pytestmark = [pytest.mark.slow, pytest.mark.root]

SUITE = "trixie"


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, walk.Outcome]]:
    """Every step's outcome; the steps go on where one fails."""
    with walk.begun(SUITE, tree(SUITE), builds=False) as system:
        yield {outcome.step: outcome for outcome in walk.take(system)}


@pytest.mark.parametrize("step", [step.name for step in walk.STEPS])
def test_a_step(step: str, outcomes: dict[str, walk.Outcome]) -> None:
    if outcomes[step].problem:
        pytest.fail(outcomes[step].problem, pytrace=False)
