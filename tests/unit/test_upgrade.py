"""What an upgrade refuses, and what it says of two closures."""

from __future__ import annotations

import pytest

from optictl.operations import resolve, upgrade
from optictl.results import Result, Status


def tier(id: str, status: Status) -> dict[str, Result]:
    return {id: Result(id, id, status)}


@pytest.mark.parametrize("status", ["warn", "fail", "skip", "error"])
def test_a_tier_that_passed_and_does_not_any_more_is_worse(status: Status) -> None:
    before = tier("health.alive", "pass") | tier("health.locked", "pass")
    after = tier("health.alive", status) | tier("health.locked", "pass")
    assert [r.id for r in upgrade.worse(before, after)] == ["health.alive"]


def test_a_tier_that_failed_before_is_no_worse() -> None:
    assert upgrade.worse(tier("health.alive", "fail"), tier("health.alive", "fail")) == []
    assert upgrade.worse({}, tier("health.alive", "fail")) == []


def test_the_difference_of_two_closures() -> None:
    old, new = "a==1\nb==1\nc==1\n", "a==1\nb==2\nd==1\n"
    assert resolve.closure_difference(old, new) == ["b 1 -> 2", "c 1 is gone", "d 1 is new"]
