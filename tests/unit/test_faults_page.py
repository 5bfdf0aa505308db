"""The page of the faults and the README's table say what the tests have seen."""

from __future__ import annotations

from scripts import faults_page
from testing.faults.rows import FAULTS


def test_every_fault_was_seen_and_no_other() -> None:
    assert set(faults_page.seen()) == {fault.key for fault in FAULTS}
    assert len(FAULTS) == len(faults_page.seen()) >= 60


def test_the_page_is_up_to_date() -> None:
    assert faults_page.PAGE.read_text(encoding="utf-8") == faults_page.page(
        FAULTS, faults_page.seen()
    )


def test_the_readme_is_up_to_date() -> None:
    text = faults_page.README.read_text(encoding="utf-8")
    assert text == faults_page.readme(text, FAULTS, faults_page.seen())
