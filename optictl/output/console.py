"""The only code that prints: words and tables for people, one JSON envelope for programs.

Results go to stdout, everything else to stderr. Where stdout is no terminal there is no
colour and no line is cut.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from optictl.deployment.invocation import Invocation
from optictl.results import Result

if TYPE_CHECKING:
    from rich.console import Console

    from optictl.errors import OptictlError

SCHEMA = 1
STATUS_STYLE = {
    "pass": "green",
    "warn": "yellow",
    "fail": "bold red",
    "skip": "dim",
    "error": "bold magenta",
}
#: A pipe gets lines as long as they are.
_PIPE_WIDTH = 1000

recording: Console | None = None
"""Set by the script that draws the README's picture: everything is printed there."""

invocation = Invocation()
"""How the commands in everything that is printed here have to be typed; the command line sets it."""


def open_console(stderr: bool = False) -> Console:
    from rich.console import Console

    if recording is not None:
        return recording
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, width=width, soft_wrap=width is not None)


def raw(text: str) -> None:
    """An artefact, byte for byte, to stdout."""
    sys.stdout.write(text)


def failure(command: str, problem: OptictlError) -> None:
    """The envelope of a command that could not do its work: no results, and why."""
    error = problem.as_dict()
    envelope(command, [], False, error={**error, "remedy": invocation.spell(error["remedy"])})


def envelope(
    command: str, results: Sequence[dict[str, Any]], ok: bool, indent: int | None = 2, **more: Any
) -> None:
    """The versioned JSON envelope, alone on stdout; on one line with `indent=None`."""
    data = {
        "schema": SCHEMA,
        "command": command,
        "status": "ok" if ok else "failed",
        "results": list(results),
        **more,
    }
    sys.stdout.write(json.dumps(data, indent=indent, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """One line of what is going on, to stderr."""
    from rich.markup import escape

    open_console(stderr=True).print(f"[dim]{escape(text)}[/dim]")


def headline(text: str) -> None:
    """The title of a part of a longer command."""
    from rich.markup import escape

    open_console(stderr=recording is None).print(f"\n[bold]{escape(text)}[/bold]")


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A spinner that says what is being done; in a pipe, a line each."""
    console = open_console(stderr=True)
    if not console.is_terminal or recording is not None:
        yield note
        return
    from rich.markup import escape

    with console.status(f"{escape(title)} ...") as status:

        def say(text: str) -> None:
            console.print(f"[dim]{escape(text)}[/dim]")
            status.update(f"{escape(text)} ...")

        yield say


@contextmanager
def steps(title: str, done: int, total: int) -> Iterator[Callable[[str], None]]:
    """A bar that grows by one with every text that is said; nothing in a pipe."""
    console = open_console(stderr=True)
    if not console.is_terminal or recording is not None:
        yield lambda _: None
        return
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(title), total=total, completed=done)
        yield lambda text: progress.update(task, advance=1, description=escape(one_line(text)))


def spelled(found: Sequence[Result]) -> list[Result]:
    """The same with remedies that can be pasted."""
    spell = invocation.spell
    return [replace(r, remedy=spell(r.remedy), found=spell(r.found)) for r in found]


def one_line(text: str) -> str:
    """What a server said, on one line and without what a terminal would obey."""
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def print_now(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def now() -> str:

    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def message(text: str) -> None:
    """A line of a command's result for people, to stdout."""
    open_console().print(invocation.spell(text), markup=False, soft_wrap=True)


def example(command: str) -> None:
    """A command to copy, never wrapped by us."""
    open_console().print(invocation.spell(command), markup=False, soft_wrap=True, style="cyan")


def error(problem: OptictlError) -> None:
    """What went wrong, what was said, and what mends it, to stderr."""
    from rich.markup import escape

    console = open_console(stderr=True)
    console.print(f"[bold red]error[/]  {escape(problem.what)}")
    if problem.detail:
        console.print(escape(problem.detail), style="dim", soft_wrap=True)
    if problem.remedy:
        # a command that is broken into lines cannot be pasted
        console.print(f"[bold]fix[/]    {escape(invocation.spell(problem.remedy))}", soft_wrap=True)
