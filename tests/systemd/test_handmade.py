"""A real OptiLLM that somebody made a service of by hand: init proposes its values, check judges it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from optictl.demo.standin import StandIn
from tests.support import UPSTREAM_KEY
from tests.systemd.handmade import HandMadeService, start_handmade
from tests.systemd.machine import Machine, booted

pytestmark = [pytest.mark.slow, pytest.mark.root]


@pytest.fixture(scope="module")
def own_machine(program: Path, locked_venv: Path) -> Iterator[Machine]:
    with booted() as machine:
        yield machine


@pytest.fixture(scope="module")
def handmade(own_machine: Machine, locked_venv: Path) -> Iterator[HandMadeService]:
    with StandIn(key=UPSTREAM_KEY).running() as upstream:
        yield start_handmade(own_machine, upstream, locked_venv)


def test_it_serves(handmade: HandMadeService) -> None:
    assert handmade.ask("none-jerry-xl").status_code == 200
