"""Rounds of checks: only what changed is told, and a round that fails is not the end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from optictl.checks import watch
from optictl.errors import OptictlError
from optictl.results import Result, Status


def result(id: str, status: Status, found: str = "", root: str = "") -> Result:
    return Result(id, "A title", status, found=found, root_cause=root)


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ([result("a", "pass", "process 1")], [result("a", "pass", "process 2")], []),
        ([result("a", "skip", "no process")], [result("a", "skip", "no port")], []),
        ([result("a", "pass")], [result("a", "fail", "gone")], [("a", "fail")]),
        ([result("a", "fail", "1 restart")], [result("a", "fail", "2 restarts")], [("a", "fail")]),
        ([result("a", "fail", root="a")], [result("a", "fail", root="b")], [("a", "fail")]),
        ([result("a", "warn", "old")], [result("a", "warn", "older")], [("a", "warn")]),
        ([result("a", "fail")], [result("a", "pass")], [("a", "pass")]),
        # only presupposed, and told while it is red
        (
            [result("a", "fail"), result("b", "skip")],
            [result("b", "pass")],
            [("b", "pass"), ("a", "skip")],
        ),
        ([], [result("a", "pass")], [("a", "pass")]),
    ],
)
def test_what_changed(before: list[Result], now: list[Result], told: list[tuple[str, str]]) -> None:
    assert [(r.id, r.status) for r in watch.changed(before, now)] == told


def told_by(*outcomes: Sequence[Result] | Exception) -> list[watch.Round]:
    """The rounds in which each of these came of the checks."""
    left = iter(outcomes)

    def judge() -> Sequence[Result]:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    found = []
    for one in watch.rounds(judge, lambda: None):
        found.append(one)
        if len(found) == len(outcomes):
            return found
    raise AssertionError


def test_the_first_round_is_told_whole_and_then_what_is_different() -> None:
    good, bad = (
        [result("a", "pass"), result("b", "pass")],
        [result("a", "pass"), result("b", "fail", "broken")],
    )
    one, two, three, four = told_by(good, good, bad, good)
    assert (one.first, one.has_news, list(one.changed)) == (True, True, good)
    assert (two.first, two.has_news, two.good) == (False, False, True)
    assert ([r.id for r in three.changed], three.good) == (["b"], False)
    assert ([(r.id, r.status) for r in four.changed], four.has_news, four.good) == (
        [("b", "pass")],
        True,
        True,
    )


def test_a_round_that_fails_is_told_once_and_the_next_ones_go_on() -> None:
    good = [result("a", "pass")]
    problems = (OptictlError("no", remedy="sudo"), OptictlError("no", remedy="sudo"), KeyError("x"))
    before, again, other, well, full = [
        *told_by(good, *problems, good)[1:],
        told_by(OSError(28, "No space", "/run/x"))[0],
    ]
    assert (before.error, before.has_news, before.good) == ("no. Fix: sudo", True, False)
    assert again.has_news is False
    assert other.has_news
    assert "KeyError: 'x'" in other.error
    assert (well.has_news, well.good, list(well.changed)) == (True, True, [])
    assert full.error == "No space: /run/x"


def test_results_that_come_late_are_a_first_round() -> None:
    failed, first = told_by(OptictlError("no"), [result("a", "pass")])
    assert (failed.has_news, failed.good) == (True, False)
    assert first.first
    assert len(first.changed) == 1
