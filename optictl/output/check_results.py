"""Results of checks, once and round by round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optictl.output.console import STATUS_STYLE, Report, Terminal, one_line, wrapped
from optictl.results import SEVERITY, Result, headline, is_proven, roots, summary

if TYPE_CHECKING:
    from optictl.checks.engine import Check
    from optictl.checks.nagios import Hysteresis
    from optictl.checks.watch import Round


@dataclass
class Results(Report):
    """Results of checks or of requests. `quiet` leaves out the passed ones, for people.

    `seconds`: how long they took, and `deployment`: its name; monitoring systems are told.
    `is_listed`: people have seen the line of each result.
    """

    items: Sequence[Result]
    quiet: bool = False
    seconds: float = 0.0
    is_listed: bool = False
    deployment: str = ""

    @property
    def ok(self) -> bool:  # type: ignore[override]
        return is_proven(self.items)

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [r.as_dict() for r in terminal.spelled(self.items)]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        return {"summary": one_line(summary(terminal.spelled(self.items)))}

    def show(self, terminal: Terminal) -> None:
        spelled = terminal.spelled(self.items)
        if not self.is_listed:
            _list(terminal, [r for r in spelled if not (self.quiet and r.status == "pass")])
        first = roots(spelled)
        explained = [r for r in spelled if r.failed and r not in first]
        for r in [*first, *explained, *(r for r in spelled if r.status == "warn")]:
            _explain(terminal, r)
        counts = [
            f"{n} {status}"
            for status in reversed(SEVERITY)
            if (n := sum(r.status == status and r.applies for r in spelled))
        ]
        if n := sum(not r.applies for r in spelled):
            counts.append(f"{n} not applicable")
        terminal.out.print()
        style = "bold green" if self.ok else "bold red"
        wrapped(terminal.out, "", one_line(headline(spelled)), style=style)
        terminal.out.print(f"[dim]({', '.join(counts)})[/dim]")

    def formatted(self, terminal: Terminal, form: str) -> str:
        from optictl.checks import nagios, prometheus

        if form == "nagios":
            return nagios.nagios(terminal.spelled(self.items), self.deployment, self.seconds)
        return prometheus.prometheus(self.items, self.deployment, self.seconds, time.time())


@dataclass
class InstallResults(Results):
    """How an installation ended. `next` is the command that starts what does not run yet."""

    next: str = ""

    def show(self, terminal: Terminal) -> None:
        terminal.headline("check")
        super().show(terminal)
        if self.ok and not any(r.id == "process.guarded" for r in self.items):
            terminal.message(f"Next: {self.next}")


@dataclass
class Damped(Results):
    """Results, and the verdict that several runs agree on.

    All is shown while a check fails, else what changed.
    `before` and `now` are the verdicts; the next one needs `needed` consecutive runs against it.
    """

    before: Hysteresis = field(kw_only=True)
    now: Hysteresis = field(kw_only=True)
    needed: int = 0

    @property
    def exit_code(self) -> int:
        return 1 if self.now.failed else 0

    def show(self, terminal: Terminal) -> None:
        if self.now == self.before and self.ok:
            return
        super().show(terminal)
        verdict, other = ("failed", "passes") if self.now.failed else ("passed", "failures")
        against = f", {self.now.against} of {self.needed} consecutive {other}"
        terminal.message(f"{verdict}{against if self.now.against else ''}")


class NagiosResults(Results):
    """The same, with the exit code of a Nagios plugin."""

    @property
    def exit_code(self) -> int:
        from optictl.checks import nagios

        return nagios.nagios_code(self.items)


@dataclass
class Catalog(Report):
    """The checks and what each expects; with `explained`, all that one says of itself."""

    checks: Sequence[Check]
    explained: bool = False

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        from optictl.checks import engine

        return [
            {
                "id": check.id,
                "title": check.title,
                "expected": check.expected,
                **({"explanation": engine.explanation(check)} if self.explained else {}),
            }
            for check in self.checks
        ]

    def show(self, terminal: Terminal) -> None:
        from optictl.checks import engine

        for check in self.checks:
            text = (
                engine.explanation(check) if self.explained else f"{check.id:<28} {check.expected}"
            )
            terminal.message(text)


def _list(terminal: Terminal, shown: Sequence[Result]) -> None:
    """One line for each result, or more where the terminal is narrow. A reason is given once."""
    width = max((len(r.id) for r in shown), default=0)
    reasons: dict[str, str] = {}
    for r in shown:
        words = one_line(r.found)
        first = reasons.setdefault(words, r.id) if r.status == "skip" else r.id
        # grep and awk get the reason on each line
        again = first != r.id and terminal.out.is_terminal
        head = _line_head(r, width)
        wrapped(terminal.out, head, f"as {first}" if again else words, "dim" if again else "")


def _line_head(r: Result, width: int) -> str:
    """The status and the id of a result, as markup; `width`: of the longest id."""
    from rich.markup import escape

    return f"[{STATUS_STYLE[r.status]}]{r.status:<5}[/] {escape(r.id):<{width}}  "


def listed(terminal: Terminal, r: Result, width: int) -> None:
    """The line of a result as soon as it is known, before a report that `is_listed`.

    `width`: of the longest id.
    """
    if terminal.form == "text":
        wrapped(terminal.out, _line_head(r, width), one_line(terminal.spell(r.found)))
        terminal.flush()


def _explain(terminal: Terminal, r: Result) -> None:
    """What the line of a result leaves out: what was expected, the cause, and the fix."""
    from rich.markup import escape

    terminal.out.print()
    wrapped(terminal.out, f"[{STATUS_STYLE[r.status]}]{r.id}[/] ", one_line(r.title))
    for name, text in (("expected", r.expected), ("cause", r.cause)):
        if text:
            wrapped(terminal.out, f"  [dim]{name:<9}[/]", one_line(text))
    if r.failed and r.root_cause not in ("", r.id):
        wrapped(terminal.out, f"  [dim]{'fix':<9}[/]", f"fix {r.root_cause}, which explains it")
    elif r.remedy:
        # a command that is broken into lines cannot be pasted
        remedy = escape(one_line(r.remedy))
        terminal.out.print(f"  [dim]{'fix':<9}[/]{remedy}", soft_wrap=True)


def round_of_checks(terminal: Terminal, checked: Round, *, quiet: bool = False) -> None:
    """A round of `check --watch`: the first one whole, then what changed.

    Each line of a change has its time.
    """
    if not checked.has_news:
        return
    if terminal.form == "json":
        said = (
            {"error": {"code": "failed", "what": checked.error, "remedy": ""}}
            if checked.error
            else {"summary": one_line(summary(checked.results))}
        )
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(checked.at))
        changed = [r.as_dict() for r in terminal.spelled(checked.changed)]
        terminal.envelope_line(changed, checked.good, time=at, **said)
    elif checked.first and not checked.error:
        Results(checked.results, quiet).show(terminal)
    else:
        _news(terminal, checked)
    terminal.flush()  # a reader behind a pipe gets it now


def _news(terminal: Terminal, checked: Round) -> None:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checked.at))

    def say(status: str, text: str) -> None:
        head = f"[dim]{at}[/] [{STATUS_STYLE[status]}]{status:<5}[/] "
        wrapped(terminal.out, head, one_line(text))

    if checked.error:
        say("error", checked.error)
        return
    for r in checked.changed:
        say(r.status, f"{r.id}: {r.found}")
    # the line above has what a failed check found
    say("pass" if checked.good else "fail", summary(terminal.spelled(checked.results)))
