"""The questions that a command asks before it changes something."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from optictl.operations.installation import Installation
    from optictl.output.console import Terminal


def ask(yes: bool, question: str = "Apply these changes?", plan: str = "--dry-run") -> None:
    """Continue only with --yes, or if the answer is yes. `plan`: what shows the plan alone.

    Raises:
        NotConfirmed: there is no terminal, or the answer is no.
    """
    from optictl.errors import NotConfirmed

    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(
            "there is no terminal to ask at",
            remedy=f"read the plan with {plan}, then run it with --yes",
        )
    try:
        confirmed = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of the input
        raise KeyboardInterrupt from None
    if not confirmed:
        raise NotConfirmed("not confirmed; nothing was changed")


def confirm(installation: Installation, yes: bool, force: bool) -> bool:
    """Ask whether a shown plan is to be applied. Returns whether edited files may be overwritten.

    Raises:
        LocalChanges: files were edited, and neither --force nor an answer allows to overwrite them.
        NotConfirmed: there is no terminal, or the answer is no.
    """
    from optictl.operations import deployment_lock

    edited = [change.target for change in installation.steps if change.edited]
    if edited and not force:
        if yes or not sys.stdin.isatty():
            deployment_lock.refuse_edited(installation.steps, installation.paths, force)
        have = "has" if len(edited) == 1 else "have"
        ask(False, f"{', '.join(edited)} {have} local changes. Overwrite? A backup is kept.")
        force = True
    ask(yes)
    return force


def refuse_blocked(terminal: Terminal, installation: Installation) -> None:
    """End here, with exit code 1, where the plan that was shown would fail."""
    from optictl.operations import deployment_lock

    terminal.ready()
    if not installation.blockers:
        return
    if terminal.form != "text":
        deployment_lock.refuse_blocked(installation)
    # the problems stand above, each with its fix
    count = len(installation.blockers)
    problems = "1 problem" if count == 1 else f"{count} problems"
    terminal.note(f"nothing was changed: fix the {problems} above first")
    raise typer.Exit(1)
