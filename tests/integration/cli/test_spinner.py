"""A real terminal: the spinner is alone on its line, and no result is lost below it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyte
import pytest

from tests.integration.cli.helpers import in_terminal

SPINNER = re.compile("[\u2800-\u28ff]")
ALONE = re.compile("[\u2800-\u28ff]( [a-z].* \\.\\.\\.)?")


def screens(output: str, columns: int) -> tuple[set[str], list[str]]:
    """Every line that ever held a spinner, and the lines that are left in the end."""
    screen = pyte.HistoryScreen(columns, 40, history=2000)
    stream = pyte.Stream(screen)
    spinning: set[str] = set()
    for part in re.split(r"(?=[\r\n\x1b])", output):
        stream.feed(part)
        spinning.update(line.rstrip() for line in screen.display if SPINNER.search(line))
    above = ["".join(row[at].data for at in range(columns)) for row in screen.history.top]
    return spinning, [line.rstrip() for line in [*above, *screen.display]]


@pytest.mark.slow
def test_a_spinner_and_a_result_never_share_a_line(tmp_path: Path) -> None:
    columns = 80
    ours = ("OPTICTL_", "XDG_", "VIRTUAL_ENV", "TERM", "COLUMNS", "NO_COLOR", "PATH", "LANG")
    # what says where packages come from, and how to trust that place
    variables = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    outcome = in_terminal(
        "demo",
        "--once",
        home=tmp_path,
        columns=columns,
        variables=variables,
        seconds=240,
    )
    assert outcome.code == 0, outcome.out
    spinning, left = screens(outcome.out, columns)
    assert spinning, "the demonstration shows no progress"
    assert [line for line in sorted(spinning) if not ALONE.fullmatch(line)] == []
    assert [line for line in left if SPINNER.search(line)] == []
    # nothing of what was printed is overwritten
    shown = "".join(left)
    assert "moa-jerry-xl" in shown
    assert "curl" in shown
