"""A real terminal: the spinner is alone on its line, and no result is lost below it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import pyte
import pytest

from testing.support import open_directory
from tests.integration.cli.helpers import in_terminal

COLUMNS = 80
GLYPH = re.compile("[\u2800-\u28ff]")
#: Behind the title only counts and seconds: "34 of 54 packages, 120 MB, 12 s".
ALONE = re.compile("[\u2800-\u28ff]( [a-z].* \\.\\.\\.( (\\d|promise ).*)?)?")
#: What the tests' own process sets, or a terminal: optictl must not see it.
NOT_INHERITED = ("OPTICTL_", "XDG_", "VIRTUAL_ENV", "TERM", "COLUMNS", "NO_COLOR", "LANG")


@dataclass(frozen=True)
class Screens:
    """Every line with a glyph of a spinner on any frame, and all lines that are left at the end."""

    spinning: set[str]
    left: list[str]


def screens(output: str) -> Screens:
    """What a terminal shows after every line, return and escape sequence of the output."""
    screen = pyte.HistoryScreen(COLUMNS, 40, history=2000, ratio=0.5)
    stream = pyte.Stream(screen)
    spinning: set[str] = set()
    for part in re.split(r"(?=[\r\n\x1b])", output):
        stream.feed(part)
        spinning.update(line.rstrip() for line in screen.display if GLYPH.search(line))
    above = ["".join(row[at].data for at in range(COLUMNS)) for row in screen.history.top]
    return Screens(spinning, [line.rstrip() for line in [*above, *screen.display]])


def shared(spinning: set[str]) -> list[str]:
    """The lines on which something else is beside the glyph."""
    return [line for line in sorted(spinning) if not ALONE.fullmatch(line)]


def test_a_result_behind_a_glyph_is_seen_on_any_frame() -> None:
    """The test below can fail: the last write of each line hides what was there before."""
    shown = screens(
        "\u280b installing ...\r\x1b[2K\u2819 installing ...pass  config\r\x1b[2Kdone\r\n"
    )
    assert shown.spinning == {"\u280b installing ...", "\u2819 installing ...pass  config"}
    assert shared(shown.spinning) == ["\u2819 installing ...pass  config"]
    assert shown.left[0] == "done"


@pytest.mark.slow
def test_a_spinner_and_a_result_never_share_a_line() -> None:
    variables = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
    with open_directory() as directory:
        outcome = in_terminal(
            "demo",
            "--once",
            "--directory",
            directory / "demo",
            home=directory,
            columns=COLUMNS,
            variables=variables,
            seconds=240,
        )
    assert outcome.code == 0, outcome.out
    shown = screens(outcome.out)
    assert shown.spinning, "the demonstration shows no progress"
    assert shared(shown.spinning) == []
    assert [line for line in shown.left if GLYPH.search(line)] == []
    for text in ("moa-jerry-xl", "All good"):
        assert [line for line in shown.left if text in line], "\n".join(shown.left)
