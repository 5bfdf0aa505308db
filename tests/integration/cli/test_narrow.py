"""Commands in a real terminal at three widths: something at once, nothing split, a clear end."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from contextlib import suppress
from fcntl import ioctl
from functools import partial
from pathlib import Path

import pyte
import pytest

from tests.integration.cli.helpers import (
    OPTICTL,
    configured,
    environment,
    fits,
    in_terminal,
    together,
)

#: Columns -> the commands to try; each takes as long as Python needs to start.
COMMANDS = {
    60: (
        (),
        ("check", "--help"),
        ("check",),
        ("status",),
        ("install", "--dry-run"),
        ("rollback", "--dry-run"),
        ("smoke", "moa-jery-xl"),
    ),
    80: ((), ("status",), ("install", "--dry-run")),
    120: ((), ("status",)),
}


def left(output: str, columns: int) -> list[str]:
    """The lines that stay on a terminal, also those above its top."""
    screen = pyte.HistoryScreen(columns, 40, history=5000, ratio=0.5)
    pyte.Stream(screen).feed(output)
    above = ["".join(row[at].data for at in range(columns)) for row in screen.history.top]
    return [line.rstrip() for line in [*above, *screen.display]]


@pytest.mark.parametrize("columns", COMMANDS)
def test_every_screen_fits(columns: int, tmp_path: Path) -> None:
    root = configured(tmp_path / "root")

    def run(words: tuple[str, ...]) -> partial[object]:
        is_bare = not words or "--help" in words
        place = () if is_bare else ("--root", str(root))
        return partial(in_terminal, *words, *place, home=tmp_path, columns=columns)

    runs = {" ".join(words): run(words) for words in COMMANDS[columns]}
    for name, outcome in together(runs).items():  # type: ignore[arg-type]
        lines = [line for line in outcome.lines if not line.endswith(" working ...")]
        # a step of a plan is a path and its reason; the fix of a note can be pasted
        lines = [line for line in lines if str(root) not in line]
        assert [line for line in lines if not fits(line, columns)] == [], name
        assert "Traceback" not in outcome.out, name
        assert not [line for line in left(outcome.out, columns) if "working ..." in line], name


def test_without_a_command_all_of_it_is_on_one_screen(tmp_path: Path) -> None:
    outcome = in_terminal(home=tmp_path, columns=80)
    assert outcome.code == 2
    assert len(outcome.out.splitlines()) <= 24


def test_ctrl_c_says_what_is_active_and_how_to_continue(tmp_path: Path) -> None:
    """An installation that is interrupted while it waits for its interpreter's answer."""
    root = configured(tmp_path / "root")
    slow = tmp_path / "sitecustomize.py"
    slow.write_text(
        "import time\n"
        "from optictl.releases import build\n"
        "def waiting(*_):\n"
        "    print('NOW', flush=True)\n"
        "    time.sleep(60)\n"
        "build.build = waiting\n"
    )
    outcome = in_terminal(
        "install",
        "--yes",
        "--root",
        root,
        home=tmp_path,
        columns=80,
        typed="\x03",
        prompt="NOW",
        variables={"PYTHONPATH": str(tmp_path)},
    )
    assert outcome.code == 130, outcome.out
    shown = "\n".join(left(outcome.out, 80))
    assert "interrupted while installing: no release is active, as before" in shown
    lines = "\n".join(outcome.lines)
    again = re.search(r"fix    run it again, it continues from what is there: (.+)", lines)
    assert again is not None
    assert "install --yes --root" in again[1]
    (log,) = (root / "var/log/optillm-proxy").iterdir()
    assert log.stat().st_mode & 0o777 == 0o600
    assert f"log    {log}" in lines
    assert "interrupted while installing" in log.read_text()


def first_output(home: Path, *arguments: str | Path) -> float:
    """Seconds of the program's own CPU time until a terminal shows anything."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = subprocess.Popen(
        [OPTICTL, *arguments],
        env=environment(home, {"TERM": "xterm-256color"}),
        cwd=home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        assert select.select([ours], [], [], 60)[0]
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks
    finally:
        process.send_signal(signal.SIGKILL)
        with suppress(OSError):
            os.close(ours)
        process.wait()


@pytest.mark.parametrize("command", ["status", "install"])
def test_something_is_shown_at_once(command: str, tmp_path: Path) -> None:
    """In CPU time: the machine of a test has other work."""
    root = configured(tmp_path / "root")
    extra = ["--dry-run"] if command == "install" else []
    assert first_output(tmp_path, command, *extra, "--root", root) < 0.6
