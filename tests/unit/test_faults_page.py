"""The faults that the tests recorded are those of the matrix."""

from __future__ import annotations

from scripts import faults_page
from testing.faults.rows import FAULTS


def test_every_fault_was_seen_and_no_other() -> None:
    assert set(faults_page.seen()) == {fault.key for fault in FAULTS}
    assert len(FAULTS) == len(faults_page.seen()) >= 60
