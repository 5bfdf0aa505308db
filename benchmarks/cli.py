"""cli: processes of optictl's fast commands, compared with a Typer hello-world."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.figures import Part, Row, figure
from benchmarks.lab import Lab, say

TITLE = "Command line"
RUNS = 15
HELLO = """\
import typer

app = typer.Typer()


@app.command()
def hello(name: str = "world") -> None:
    typer.echo(f"hello {name}")


if __name__ == "__main__":
    app()
"""


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU time of a process in milliseconds. Its exit code must be 0."""
    since = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - since
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} ended with {process.returncode}")
    return wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def measure(lab: Lab) -> Part:
    """One unmeasured run of each (to write bytecode), then alternating runs."""
    optictl = str(Path(sys.executable).parent / "optictl")
    hello, root, empty = lab.place / "hello.py", str(lab.place / "root"), str(lab.place / "empty")
    hello.write_text(HELLO)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(lab.place), "LANG": "C.UTF-8"}
    run([optictl, "init", "--root", root], environment)
    commands = {
        "hello": [sys.executable, str(hello)],
        "--version": [optictl, "--version"],
        "render-unit": [optictl, "render-unit", "--root", empty],
        "render-unit, with a file": [optictl, "render-unit", "--root", root],
        "check --only config": [optictl, "check", "--only", "config", "--root", root],
    }
    limits = {"--version": 1.3, "render-unit": 1.5, "check --only config": 2.0}
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    say(f"cli: {len(commands)} commands, {RUNS} runs in turn")
    for turn in range(RUNS + 1):
        for name, command in commands.items():
            taken = run(command, environment)
            if turn:
                found[name].append(taken)
    rows = [
        Row(
            f"`optictl {name}`: {what}".replace(", with a file`", "` with a file"),
            "ms",
            figure(taken[index] for taken in found[name]),
            "Typer hello-world",
            figure(taken[index] for taken in found["hello"]),
            limits.get(name) if index == 0 else None,
        )
        for index, what in enumerate(("wall time", "CPU time"))
        for name in commands
        if name != "hello"
    ]
    return Part(
        rows,
        [
            "Whole processes from spawn to exit, output discarded, with bytecode, in the same "
            "virtual "
            "environment. The hello-world has one command with one option.",
            "`render-unit` with the defaults, and with a configuration file; `check --only config` "
            "with a configuration file.",
        ],
    )
