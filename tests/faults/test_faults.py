"""Each fault is found, shown as the one cause of all that is red, and mended by the remedy that was printed."""

from __future__ import annotations

import pytest

from tests.faults.bench import Bench
from tests.faults.fault import Fault
from tests.faults.mending import prove
from tests.faults.rows import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.root]


def test_a_healthy_deployment_is_accused_of_nothing(bench: Bench) -> None:
    look = bench.look()
    assert look.complaints == {}
    assert {name for name, wrong in look.others.items() if wrong} == set()
    # every check has really looked
    assert [r.id for r in look.results if r.status == "skip"] == []


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{f.family}: {f.name}" for f in FAULTS])
def test_the_fault_is_found_and_mended(bench: Bench, fault: Fault) -> None:
    prove(bench, fault)
