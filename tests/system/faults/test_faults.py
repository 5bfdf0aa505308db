"""Each fault is found, shown as the one cause of all failures, and fixed by the printed remedy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from scripts import faults_page
from testing.faults.bench import Bench
from testing.faults.fault import Fault
from testing.faults.proof import prove
from testing.faults.rows import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.root]


def test_a_healthy_deployment_is_accused_of_nothing(bench: Bench) -> None:
    look = bench.look()
    assert look.complaints == {}
    assert {name for name, wrong in look.others.items() if wrong} == set()
    # every check has really looked; few requests are no ground for a verdict about effect
    assert {r.id for r in look.results if r.status == "skip"} <= {"strategies.effect"}


@pytest.mark.parametrize("fault", FAULTS, ids=[f.key for f in FAULTS])
def test_the_fault_is_found_and_mended(
    bench: Bench, fault: Fault, record_property: Callable[[str, object], None]
) -> None:
    others = prove(bench, fault).others
    record_property(
        "fault", [fault.key, fault.id, *("yes" if others[way] else "-" for way in faults_page.WAYS)]
    )
    if os.environ.get("OPTICTL_RECORD_FAULTS"):
        known = (
            {**faults_page.seen(), fault.key: others}
            if faults_page.SEEN.exists()
            else {fault.key: others}
        )
        order = [f.key for f in FAULTS if f.key in known]
        faults_page.SEEN.write_text(
            json.dumps({key: known[key] for key in order}, indent=1) + "\n", encoding="utf-8"
        )
    recorded = faults_page.seen()[fault.key]
    for way in faults_page.WAYS:
        if way not in fault.unsteady:
            assert others[way] == recorded[way], (
                f"{way}; OPTICTL_RECORD_FAULTS=1 records it, scripts/faults_page.py writes it"
            )
