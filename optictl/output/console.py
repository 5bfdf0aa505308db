"""The only code that prints: words and tables for people, JSON for programs.

Results go to the standard output, everything else to the standard error. Where a stream is not a
terminal it gets no colour, and no line is wrapped.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from optictl.deployment.invocation import Invocation
from optictl.errors import output_failed
from optictl.host.run_log import RunLog
from optictl.output import envelope
from optictl.output.figures import span
from optictl.output.progress import SILENCE, Form, Heart, Moving, Steps, json_line
from optictl.output.tables import broken
from optictl.results import Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from optictl.errors import OptictlError

STATUS_STYLE = {
    "pass": "green",
    "warn": "yellow",
    "fail": "bold red",
    "skip": "dim",
    "error": "bold magenta",
}
#: A pipe gets lines as long as they are.
_PIPE_WIDTH = 1000
#: Less has no room for a bar beside the text of a step.
_WIDE = 100


class Report:
    """What a command did. It knows how to say so to people and to programs.

    `more` is what the envelope has besides its results.
    """

    ok = True

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else 1

    def results(self, terminal: Terminal) -> Sequence[Any]:
        """The items of the envelope's `results`."""
        return []

    def more(self, terminal: Terminal) -> dict[str, Any]:
        """The envelope's other fields."""
        return {}

    def show(self, terminal: Terminal) -> None:
        """The same for people."""

    def formatted(self, terminal: Terminal, form: str) -> str:
        """The same in another format than text and JSON, where a command has one."""
        raise ValueError(f"this command has no format {form}")


@dataclass(frozen=True)
class Screen:
    """How much of what a command does is shown, and how.

    `verbosity`: -1 errors and results alone, 0 steps, 1 also the programs that are run.
    `silence`: seconds after which a line says that the work goes on.
    """

    steps: Form = "auto"
    verbosity: int = 0
    silence: float = SILENCE


class _Live(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


def _open(stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else _PIPE_WIDTH
    return Console(stderr=stderr, highlight=False, width=width, soft_wrap=width is not None)


@contextmanager
def _standard_output() -> Iterator[None]:
    """Name the standard output in what goes wrong with it.

    A reader that left is no error of ours.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as failure:
        raise output_failed(failure) from None


class Terminal:
    """One run's way to the screen: one console per stream, and at most one live display.

    `command` and `form` are what an envelope needs: the command's name, and the value of --output.
    `invocation` spells the commands in everything that is printed. `recording` is a console that
    takes both streams, for a picture.
    """

    def __init__(
        self,
        command: str = "",
        form: str = "text",
        invocation: Invocation | None = None,
        recording: Console | None = None,
        screen: Screen | None = None,
    ) -> None:
        self.command, self.form = command, form
        self.invocation = invocation or Invocation()
        self.screen = screen or Screen()
        self.run_log = RunLog()
        self._is_recorded = recording is not None
        self._out, self._err = recording, recording
        self._live: _Live | None = None
        self._waits: _Live | None = None
        self._has_envelope = self._is_stream = False

    @property
    def out(self) -> Console:
        """The standard output. A live display ends before a result is printed beside it."""
        self.ready()
        if self._live is not None:
            self._live.stop()
        if self._out is None:
            self._out = _open(stderr=False)
        return self._out

    @property
    def err(self) -> Console:
        """The standard error."""
        if self._err is None:
            self._err = _open(stderr=True)
        return self._err

    def spell(self, text: str) -> str:
        """The text with every command as this caller has to type it."""
        return self.invocation.spell(text)

    def spelled(self, results: Sequence[Result]) -> list[Result]:
        """The same results with commands that can be pasted."""
        return [replace(r, remedy=self.spell(r.remedy), found=self.spell(r.found)) for r in results]

    # -- what a command did

    def finish(self, report: Report) -> int:
        """Print what a command did, in the format that was asked for. Returns its exit code."""
        if self.form == "text":
            report.show(self)
        elif self.form == "json":
            self._envelope(report.results(self), report.ok, **report.more(self))
        else:
            self.raw(report.formatted(self, self.form))
        return report.exit_code

    def preview(self, report: Report) -> None:
        """Show people what a command is about to do, or a part of what it did."""
        if self.form == "text":
            report.show(self)

    def fail(self, error: OptictlError) -> int:
        """Print why a command could not do its work. Returns its exit code."""
        from rich.markup import escape

        self.ready()
        if self.form == "json" and not self._has_envelope:
            self.envelope_of(error)
        self.error(error)
        if (log := self.run_log.path) is not None:
            if self.screen.steps == "json":
                self.note(f"log {log}")
            else:
                self.err.print(f"[bold]log[/]    {escape(str(log))}", soft_wrap=True)
        return error.exit_code

    def envelope_of(self, error: OptictlError) -> None:
        """The envelope of a command that could not do its work: no results, and why."""
        said = error.as_dict()
        self._envelope([], False, error={**said, "remedy": self.spell(said["remedy"])})

    def _envelope(self, results: Sequence[Any], ok: bool, **more: Any) -> None:
        data = envelope.envelope(self.command, results, ok, **more)
        self._has_envelope = True
        # behind lines that a program reads one by one, it is one line, too
        self.raw(envelope.dump(data, None if self._is_stream else 2) + "\n")

    def envelope_line(self, results: Sequence[Any], ok: bool, **more: Any) -> None:
        """One envelope of a stream of them, on one line."""
        self.line(envelope.dump(envelope.envelope(self.command, results, ok, **more), None))

    # -- the standard output

    def raw(self, text: str) -> None:
        """A text, byte for byte."""
        self.ready()
        if self._live is not None:
            self._live.stop()
        with _standard_output():
            sys.stdout.write(text)

    def line(self, text: str) -> None:
        """A line that a reader behind a pipe gets at once."""
        self._is_stream = True
        self.raw(text + "\n")
        self.flush()

    def flush(self) -> None:
        """Give a reader behind a pipe what was printed so far."""
        with _standard_output():
            sys.stdout.flush()

    def message(self, text: str) -> None:
        """A line of a command's result for people, not wrapped."""
        self.out.print(self.spell(text), markup=False, soft_wrap=True)

    def example(self, command: str) -> None:
        """A command to copy, not wrapped."""
        self.out.print(self.spell(command), markup=False, soft_wrap=True, style="cyan")

    # -- the standard error

    def note(self, text: str) -> None:
        """One line about what is going on."""
        self._note("note", text)

    def _note(self, event: str, text: str, **more: float) -> None:
        from rich.markup import escape

        spelled = self.spell(text)
        self.run_log.write(spelled)
        if self.screen.verbosity < 0:
            return
        if self.screen.steps == "json":
            line = json_line(self.command, event, spelled, **more)
            self.err.print(line, markup=False, soft_wrap=True)
        else:
            self.err.print(f"[dim]{escape(spelled)}[/dim]", soft_wrap=True)

    def detail(self, text: str) -> None:
        """A line for --verbose and the log file: a program that was run, and how it ended."""
        if self.screen.verbosity > 0:
            self.note(text)
        else:
            self.run_log.write(self.spell(text))

    def headline(self, text: str) -> None:
        """The title of a part of a longer command."""
        from rich.markup import escape

        if self.screen.verbosity < 0 or self.screen.steps == "json":
            return
        self.err.print(f"\n[bold]{escape(text)}[/bold]", soft_wrap=True)

    def error(self, problem: OptictlError) -> None:
        """What is wrong, what a tool said about it, and what fixes it."""
        from rich.markup import escape

        for text in (problem.what, problem.detail, problem.remedy):
            self.run_log.write(self.spell(text))
        if self.screen.steps == "json":
            more = {"code": problem.code, "remedy": self.spell(problem.remedy)}
            line = json_line(self.command, "error", self.spell(problem.what), **more)
            self.err.print(line, markup=False, soft_wrap=True)
            return

        wrapped(self.err, "[bold red]error[/]  ", one_line(self.spell(problem.what)))
        for line in problem.detail.splitlines():
            wrapped(self.err, "       ", printable(line), style="dim")
        if problem.remedy:
            # a command that is broken into lines cannot be pasted
            remedy = escape(self.spell(problem.remedy))
            self.err.print(f"[bold]fix[/]    {remedy}", soft_wrap=True)

    def wait(self) -> None:
        """Show at once that the command works. What it prints or does next takes the place."""
        if self._may_move and self.form == "text":
            self._waits = waits = self._live_line(Moving("working"))
            waits.start(refresh=True)

    def ready(self) -> None:
        """End what `wait` shows: a result, a question or the end of the command follows."""
        if self._waits is not None:
            self._waits.stop()
            self._waits = None

    @contextmanager
    def progress(self, title: str) -> Iterator[Steps]:
        """A line for everything that is being done, on a terminal above a line that moves."""
        self.ready()
        if not self._may_move:
            with self._beating(title) as heart:

                def noted(text: str) -> None:
                    heart.said(text)
                    self._step(text)

                yield Steps(noted, lambda text: setattr(heart, "detail", text))
            return
        moving = Moving(title)
        live = self._live_line(moving)

        def say(text: str) -> None:
            moving.detail = ""
            self.note(text)  # the moving line stays below it, and repeats nothing
            live.start()  # a result on the standard output stopped it

        with self._moving(live):
            yield Steps(say, lambda text: setattr(moving, "detail", one_line(text)))

    def _step(self, text: str) -> None:
        """A step where nothing moves."""
        if self.screen.steps == "off":
            self.run_log.write(self.spell(text))
        else:
            self._note("step", text)

    @contextmanager
    def _beating(self, title: str) -> Iterator[Heart]:
        """Lines that say that the work goes on, while nothing else is said."""

        def alive(text: str, seconds: float) -> None:
            words = text if self.screen.steps == "json" else f"{text} ({span(seconds)})"
            self._note("waiting", one_line(words), seconds=round(seconds, 1))

        heart = Heart(title, alive, self.screen.silence)
        is_off = self.screen.steps == "off" or self.screen.verbosity < 0 or self._is_recorded
        if is_off or self._live is not None:
            yield heart
            return
        with heart.beating():
            yield heart

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take what optictl's modules log about the programs that they run, while a command runs.
        At its end nothing moves any more.
        """
        logger, handler = logging.getLogger("optictl"), _Listener(self)
        level, logger.propagate = logger.level, False
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            self.ready()

    def _live_line(self, moving: Moving) -> Live:
        from rich.live import Live

        return Live(moving, console=self.err, refresh_per_second=10, transient=True)

    @contextmanager
    def steps(self, title: str, total: int) -> Iterator[Callable[[str], None]]:
        """A bar that grows by one with every text that is said; in a pipe a line for each."""
        self.ready()
        if not self._may_move:
            count = itertools.count(1)
            with self._beating(title) as heart:

                def counted(text: str) -> None:
                    line = f"{next(count)} of {total}: {one_line(text)}"
                    heart.said(line)
                    self._step(line)

                yield counted
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

        is_narrow = self.err.width < _WIDE
        columns = (
            *(() if is_narrow else (BarColumn(20),)),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            *(() if is_narrow else (TimeRemainingColumn(),)),
            TextColumn("{task.description}"),
        )
        bar = Progress(*columns, console=self.err, transient=True)
        task = bar.add_task(escape(title), total=total)
        with self._moving(bar):
            yield lambda text: bar.update(task, advance=1, description=escape(one_line(text)))

    @property
    def _may_move(self) -> bool:
        may = self.screen.steps == "auto" and self.screen.verbosity >= 0
        return may and self.err.is_terminal and not self._is_recorded and self._live is None

    @contextmanager
    def _moving(self, live: _Live) -> Iterator[None]:
        self._live = live
        live.start()
        try:
            yield
        finally:
            live.stop()
            self._live = None


class _Listener(logging.Handler):
    """Hands the records of a logger to a terminal."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.detail(record.getMessage())


def wrapped(console: Console, head: str, text: str | Text, style: str = "") -> None:
    """A text behind `head` (markup) and below it. Lines are broken at spaces: no word is split."""
    from rich.text import Text

    begin = Text.from_markup(head)
    below = " " * begin.cell_len
    whole = text.copy() if isinstance(text, Text) else Text(text)
    whole.stylize_before(style)
    width = max(20, console.width - begin.cell_len)
    for line in broken(whole, width) if console.is_terminal else [whole]:
        console.print(begin + line, soft_wrap=True)
        begin = Text(below)


def one_line(text: str) -> str:
    """What a server said, on one line and without what a terminal would obey."""
    return " ".join(printable(text).split())


def printable(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
