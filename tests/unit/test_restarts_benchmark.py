"""The long restarts benchmark: what ends a run, and what several runs add up to."""

from __future__ import annotations

import os
import signal

import pytest

from benchmarks import restarts
from testing.load import table


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "PAUSE", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_the_restart_under_way(number: signal.Signals) -> None:
    begun = []

    def once() -> None:
        begun.append(number)
        if len(begun) == 2:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with restarts._told() as told:
        assert restarts._repeat(once, 5, 1, told) == (2, "")
    assert len(begun) == 2
    assert signal.getsignal(number) is handler


def test_the_limits_end_a_run() -> None:
    with restarts._told() as told:
        assert restarts._repeat(lambda: None, 3, 1, told) == (3, "")
        assert restarts._repeat(lambda: None, 3, 0, told) == (0, "")


def test_a_failure_ends_a_run_in_words() -> None:
    def once() -> None:
        raise RuntimeError("the process is the same")

    with restarts._told() as told:
        assert restarts._repeat(once, 3, 1, told) == (0, "restart 1: the process is the same")


def test_runs_are_read_back_and_added_up() -> None:
    one = (
        "2026-01-02",
        "10",
        "2.5",
        "2 cores",
        "4.5",
        "100",
        "0",
        "1",
        "0",
        "0.010",
        "0.500",
        "20",
        "0",
        "0",
        "2",
    )
    two = (
        "2026-01-03",
        "5",
        "1.0",
        "2 cores",
        "0.5",
        "50",
        "0",
        "0",
        "0",
        "0.020",
        "0.090",
        "10",
        "3",
        "0",
        "0",
    )
    total = restarts._sum([one, two])
    assert total == (
        "all",
        "15",
        "3.5",
        "",
        "",
        "150",
        "0",
        "1",
        "0",
        "",
        "0.500",
        "30",
        "3",
        "0",
        "2",
    )
    written = restarts.PREAMBLE + table([one, two, total], restarts.COLUMNS)
    assert restarts._runs(written) == [one, two]
