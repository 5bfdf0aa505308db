"""One deployment for all faults, and the table of who found them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.faults import bench as benches
from testing.faults.bench import Bench


@pytest.fixture(scope="session")
def bench(program: Path, litellm_program: Path) -> Iterator[Bench]:
    with benches.running(program, litellm_program) as bench:
        yield bench
