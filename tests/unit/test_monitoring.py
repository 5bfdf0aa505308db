"""Results in the words of monitoring systems."""

from __future__ import annotations

import re

import pytest

from optictl import monitoring
from optictl.results import SEVERITY, Result, Status


def results(*statuses: Status) -> list[Result]:
    return [Result(f"family.n{i}", "A title", s, found="a | pipe\nand a line") for i, s in enumerate(statuses)]


@pytest.mark.parametrize(
    ("statuses", "code", "word"),
    [
        (["pass", "skip"], 0, "OK"),
        (["pass", "warn"], 1, "WARNING"),
        (["warn", "error", "fail"], 2, "CRITICAL"),
        (["pass", "warn", "error"], 3, "UNKNOWN"),
        (["skip"], 3, "UNKNOWN"),
        ([], 3, "UNKNOWN"),
    ],
)
def test_a_plugin_says_one_line_and_its_exit_code(statuses: list[Status], code: int, word: str) -> None:
    found = results(*statuses)
    assert monitoring.nagios_code(found) == code
    line = monitoring.nagios(found, 0.25)
    assert line.count("\n") == line.count("|") == 1
    text, _, data = line.partition(" | ")
    assert text.startswith(f"OPTILLM {word} - ")
    values = dict(item.split("=") for item in data.split())
    assert values["time"] == "0.250s;;;0"
    assert {s: int(values[s].split(";")[0]) for s in SEVERITY} == {s: statuses.count(s) for s in SEVERITY}


def test_every_metric_is_described_and_each_check_is_in_one_state() -> None:
    text = monitoring.prometheus(results("pass", "fail", "skip"), 1.5, 1700000000.0)
    assert text.endswith("\n")
    samples = [re.fullmatch(r"(\w+)(\{.*\})? (\d+(\.\d+)?)", line) for line in text.splitlines() if line[0] != "#"]
    assert all(samples)
    for name in {s[1] for s in samples if s}:
        assert text.count(f"# HELP {name} ") == text.count(f"# TYPE {name} gauge") == 1
    assert text.count('status="pass"} 1') == text.count('status="fail"} 1') == text.count('status="skip"} 1') == 1
    assert "optillm_check_healthy 0\n" in text
    assert "optillm_check_last_run_timestamp_seconds 1700000000\n" in text
