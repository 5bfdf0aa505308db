"""One set of hosts for all tests of the fleet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testing.hosts import Fleet, fleet_of


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    with fleet_of(3) as fleet:
        yield fleet
