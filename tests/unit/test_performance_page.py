"""docs/explanation/performance.md: its figures are those of the benchmarks, also the bad ones."""

from __future__ import annotations

import pytest

from benchmarks import results
from scripts import performance_page
from testing.support import ROOT

BENCHMARKS = ROOT / "benchmarks"


def text(name: str) -> str:
    return (BENCHMARKS / name).read_text(encoding="utf-8")


def test_a_goal_that_is_not_met_is_marked() -> None:
    measured = results.read(BENCHMARKS)
    for row in measured["install"]["rows"]:
        if row["what"] == "on disk":
            row["met"] = False
    (line,) = (
        line
        for line in performance_page.figures(measured).splitlines()
        if line.startswith("| Installed, on disk |")
    )
    assert line.endswith("| < 1/15, not met |")


def test_a_row_that_was_not_measured_is_an_error() -> None:
    measured = results.read(BENCHMARKS)
    del measured["check"]
    with pytest.raises(ValueError, match="not one row '`optictl check`, warm: wall time'"):
        performance_page.figures(measured)


def test_every_lost_request_counts() -> None:
    lines = text("RESTARTS.md").splitlines()
    cells = lines[-1].split("|")
    head = [cell.strip() for cell in next(x for x in lines if x.startswith("| date")).split("|")]
    refused, also_refused = (place for place, name in enumerate(head) if name == "refused")
    cells[refused], cells[also_refused] = " 2 ", " 3 "
    changed = "\n".join([*lines[:-1], "|".join(cells)])
    assert "no request was refused" in performance_page.restarts(text("RESTARTS.md"))
    assert "5 requests were refused" in performance_page.restarts(changed)


def test_the_slowest_answer_of_every_table_counts() -> None:
    changed = text("LOAD.md").replace("| 9.29 |", "| 5,000 |", 1)
    assert changed != text("LOAD.md")
    shown = " ".join(performance_page.load(changed).split())
    assert "with 64 clients, `/health` never took longer than 5,000 ms" in shown


def test_a_page_without_a_forecast_is_an_error() -> None:
    with pytest.raises(ValueError, match="no forecast"):
        performance_page.fleet(text("FLEET.md").split("## 1,000 hosts")[0])
