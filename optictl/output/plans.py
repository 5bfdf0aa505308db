"""Plans: the steps with their diffs, what blocks them, and each step once it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optictl.errors import Blocked
from optictl.output.console import STATUS_STYLE, Report, Terminal, one_line, wrapped
from optictl.output.tables import Table
from optictl.results import Result

if TYPE_CHECKING:
    from optictl.operations.installation import Installation
    from optictl.operations.steps import Effect, Step
    from optictl.takeover.table import Row as TakeoverRow

#: The colour of a step, by what it does.
_COLOUR: dict[Effect, str] = {"add": "green", "change": "yellow", "remove": "red", "run": "cyan"}


@dataclass
class Plan(Report):
    """What an installation or an upgrade would do, and what stands in its way.

    `is_full`: also show the text of new files. `is_detailed`: the exit code tells whether there is
    something to do.
    """

    installation: Installation
    force: bool = False
    is_full: bool = False
    is_detailed: bool = False

    @property
    def ok(self) -> bool:  # type: ignore[override]
        return not self.installation.blockers

    @property
    def exit_code(self) -> int:
        return detailed(self.ok, self.installation.steps if self.is_detailed else ())

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [step.as_dict() for step in self.installation.steps]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        installation, more = self.installation, dict[str, Any]()
        if installation.problems:
            more["problems"] = [r.as_dict() for r in terminal.spelled(installation.problems)]
        if not self.ok:
            more["error"] = blocked(terminal.spelled(installation.blockers)).as_dict()
            more["error"].pop("problems", None)
        if installation.hand_made is not None:
            more["takeover"] = [row.as_dict() for row in installation.table]
        return more

    def show(self, terminal: Terminal) -> None:
        installation = self.installation
        problems(terminal, installation.problems)
        if installation.hand_made is not None and installation.steps:
            takeover(terminal, installation.hand_made.unit, installation.table, forced=self.force)
        if installation.steps:
            changes(terminal, installation.steps, is_full=self.is_full)
            count(terminal, installation.steps, len(installation.blockers))
        else:
            terminal.message("No changes.")


@dataclass
class Removal(Report):
    """What `uninstall` removes. `hints`: lines about what it keeps. `is_detailed`: the exit code
    tells whether there is something to do.
    """

    planned: Sequence[Step]
    hints: Sequence[str] = ()
    is_detailed: bool = False

    @property
    def exit_code(self) -> int:
        return detailed(True, self.planned if self.is_detailed else ())

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [step.as_dict() for step in self.planned]

    def show(self, terminal: Terminal) -> None:
        changes(terminal, self.planned)
        if self.planned:
            count(terminal, self.planned)
        else:
            terminal.message("Nothing is installed.")
        for hint in self.hints:
            terminal.message(hint)


@dataclass
class Removed(Report):
    """What `uninstall` removed, where the plan was shown before."""

    changes: Sequence[Step]

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [step.as_dict() for step in self.changes]


def blocked(blockers: Sequence[Result]) -> Blocked:
    """Why a plan cannot be applied: each problem, and each command once."""
    remedies = dict.fromkeys(problem.remedy for problem in blockers if problem.remedy)
    return Blocked(
        "; ".join(problem.found for problem in blockers),
        "; ".join(remedies),
        problems=[problem.as_dict() for problem in blockers],
    )


def problems(terminal: Terminal, results: Sequence[Result]) -> None:
    """What preflight found: what is wrong and the command that fixes it, the blocking ones
    first.
    """
    from rich.markup import escape

    console = terminal.out
    for r in terminal.spelled(results):
        word = "blocked" if r.failed else "note"
        wrapped(console, f"[{STATUS_STYLE[r.status]}]{word:<7}[/] ", one_line(r.found))
        if r.remedy:
            console.print(f"        fix: {escape(one_line(r.remedy))}", soft_wrap=True)
    if results:
        console.print()


def takeover(terminal: Terminal, unit: str, rows: Sequence[TakeoverRow], *, forced: bool) -> None:
    """What changes when a service that was written by hand is replaced."""
    from rich.markup import escape

    console = terminal.out
    wrapped(console, "", f"{unit} was written by hand. With optictl it changes:", style="bold")
    table = Table("", "now", "becomes")
    for row in rows:
        style = "" if row.changes else "dim"
        table.add(escape(row.what), escape(row.now), escape(row.becomes), style=style)
    table.print(console)
    if not forced:
        wrapped(
            console,
            "[bold yellow]--force is needed[/] ",
            "to replace it; a backup is kept, and it is restored if anything fails",
        )
    console.print()


def detailed(is_ok: bool, steps: Sequence[Step]) -> int:
    """The exit code of a plan: 0 nothing to do, 1 it would fail, 2 something to do."""
    return (2 if steps else 0) if is_ok else 1


#: How the last line of a plan counts its steps, in this order.
_COUNTED: dict[Effect, str] = {
    "add": "to add",
    "change": "to change",
    "remove": "to remove",
    "run": "to run",
}


def count(terminal: Terminal, planned: Sequence[Step], blockers: int = 0) -> None:
    """The last line of a plan: how many steps of each kind, and what stands in the way."""
    numbers = {
        words: sum(step.effect == effect for step in planned) for effect, words in _COUNTED.items()
    }
    text = ", ".join(f"{number} {words}" for words, number in numbers.items() if number)
    if blockers:
        text += f"; blocked by {'1 problem' if blockers == 1 else f'{blockers} problems'}"
    terminal.out.print()
    wrapped(terminal.out, "", f"Plan: {text}.", style="bold red" if blockers else "bold")


#: The first line of the diff of a file that is not there yet.
_NEW = "--- /dev/null"


def changes(terminal: Terminal, planned: Sequence[Step], *, is_full: bool = False) -> None:
    """A plan: each step with its reason, then its diff. A new file has one line, or all of them
    if `is_full`.
    """
    from rich.syntax import Syntax
    from rich.text import Text

    console = terminal.out
    for step in planned:
        shown, style = step.describe(), _COLOUR[step.effect]
        edited = " (edited)" if shown.edited else ""
        is_hidden = shown.diff.startswith(_NEW) and not is_full
        added = sum(line.startswith("+") for line in shown.diff.splitlines()) - 1
        size = f"; {added} lines" if is_hidden else ""
        line = Text(shown.target).append(edited, "bold red")
        line.append(f" ({shown.reason}{size})", "dim")
        wrapped(console, f"[{style}]{shown.action:<7}[/] ", line)
        if is_hidden:
            continue
        if shown.diff.startswith("---"):
            if console.is_terminal:
                highlighted = Syntax("", "diff", background_color="default").highlight(shown.diff)
                console.print(highlighted, soft_wrap=True, end="")
            else:
                console.print(shown.diff, markup=False, soft_wrap=True, end="")
        elif shown.diff:
            wrapped(console, "        ", shown.diff, style="dim")


def done(terminal: Terminal) -> Callable[[Step], None]:
    """Prints each step once it is applied."""
    return lambda step: terminal.note(f"{step.done} {step.target}")
