"""What requests did: traces and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optictl.output.check_results import Results, listed
from optictl.output.console import (
    STATUS_STYLE,
    Report,
    Terminal,
    one_line,
    printable,
    wrapped,
)
from optictl.output.figures import number, short
from optictl.output.tables import Table
from optictl.results import Result

if TYPE_CHECKING:
    from optictl.errors import OptictlError
    from optictl.requests import smoke
    from optictl.requests.compare.summary import Row
    from optictl.requests.tracing import Trace


@dataclass
class Compared(Report):
    """Strategies beside their plain models.

    `file` holds the answers, which took `tokens`. `samples_left`: samples of plain models that were
    not asked for. Where `budget` (tokens) ended it, `again` is the command that continues with a
    larger one. `page`: the file with the page, "" for none.
    """

    rows: Sequence[Row]
    file: str
    budget: int | None
    again: str | None
    tokens: int = 0
    samples_left: int = 0
    page: str = ""

    @property
    def _asked(self) -> list[Row]:
        """The rows of requests. A baseline is made of samples, which it shares with others."""
        return [r for r in self.rows if r.subject.samples == 1]

    @property
    def left_out(self) -> int:
        return sum(r.left_out for r in self._asked) + self.samples_left

    @property
    def failed(self) -> int:
        return sum(r.failed for r in self.rows)

    @property
    def ok(self) -> bool:  # type: ignore[override]
        return not self.failed

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [r.as_dict() for r in self.rows]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        return {
            "file": self.file,
            "page": self.page,
            "tokens": self.tokens,
            "budget_tokens": self.budget,
            "left_out": self.left_out,
            "failed": self.failed,
        }

    def show(self, terminal: Terminal) -> None:
        for base_model in dict.fromkeys(r.subject.base_model for r in self.rows):
            rows = [r for r in self.rows if r.subject.base_model == base_model]
            _compared(terminal, base_model, rows)
        for paragraph in self._notes():
            terminal.out.print()
            for line in paragraph:
                wrapped(terminal.out, "", line)
        if self.again:
            terminal.message(f"More: {self.again}")
        if self.page:
            terminal.note(f"the page is {self.page}")
        terminal.note(f"every answer is in {self.file}")

    def _notes(self) -> Iterator[list[str]]:
        """What the table does not say, in paragraphs."""
        failed = [r for r in self.rows if r.failed]
        for r in failed:
            last = one_line(r.error)
            line = f"{r.subject.label}: {r.failed} requests failed, the last one with: {last}"
            kept = f"Failed requests are not counted; --resume {self.file} repeats them"
            yield [line, *([kept] if r is failed[-1] else [])]
        spent = []
        if self.again:
            spent.append(f"{self._left_out}: one more may pass the budget of {self.budget} tokens")
        if self.budget is not None and self.tokens > self.budget:
            over = self.tokens - self.budget
            spent.append(
                f"Passed the budget by {over} tokens: a request took more than any before."
            )
        if spent:
            yield spent

    @property
    def _left_out(self) -> str:
        """What was not asked, in words."""
        left = sum(r.left_out for r in self._asked)
        asked = sum(r.answered + r.failed for r in self._asked)
        samples = f", and {self.samples_left} samples of plain models" if self.samples_left else ""
        return f"Left out: {left} of {asked + left} requests{samples}"


@dataclass
class Traced(Report):
    """A request and what it did upstream."""

    model: str
    trace: Trace
    problem: str

    @property
    def ok(self) -> bool:  # type: ignore[override]
        return not self.problem

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        result = Result(
            id=self.model,
            title=f"{self.trace.strategy} on {self.trace.base_model}",
            status="pass" if self.ok else "fail",
            expected="an answer",
            found=self.problem or f"{len(self.trace.calls)} calls",
            data={"trace": self.trace.as_dict()},
        )
        return [result.as_dict()]

    def show(self, terminal: Terminal) -> None:
        waterfall(terminal, self.model, self.trace)


@dataclass
class Smoked(Results):
    """Requests as results of checks, each with its trace where it has one."""

    traces: Sequence[tuple[str, Trace]] = ()
    #: Why traces could not be read.
    problems: Sequence[OptictlError] = ()

    @property
    def exit_code(self) -> int:
        return 0 if self.ok and not self.problems else 1

    def show(self, terminal: Terminal) -> None:
        super().show(terminal)
        for model, trace in self.traces:
            waterfall(terminal, model, trace)


def as_they_end(terminal: Terminal, names: Sequence[str]) -> Callable[[smoke.Smoked], None]:
    """Prints the line of each of these models, in the text format, when its request has ended."""
    width = max(map(len, names), default=0)
    return lambda smoked: listed(terminal, smoked.result, width)


#: Characters of an answer that are shown.
_ANSWER_LENGTH = 600


def answer(terminal: Terminal, model: str, text: str) -> None:
    """The beginning of an answer, below the model that gave it."""
    from rich.markup import escape

    lines = [printable(line).rstrip() for line in text[:_ANSWER_LENGTH].strip().splitlines()]
    if len(text) > _ANSWER_LENGTH:
        lines.append(f"[... {len(text) - _ANSWER_LENGTH} more characters]")
    terminal.out.print(f"\n[bold]{escape(model)}[/]")
    for line in lines or ["(no text)"]:
        wrapped(terminal.out, "  ", line)


def _compared(terminal: Terminal, base_model: str, rows: Sequence[Row]) -> None:
    from rich.markup import escape

    from optictl.requests.compare import summary

    console = terminal.out
    priced = any(r.cost is not None for r in rows)
    figures = ["right", "95 %", "effect", "calls", "tokens", "p50 s", "p95 s"]
    figures += ["cost"] if priced else []
    table = Table(escape(base_model), *figures, "", numbers=figures)
    for r in rows:
        verdict = r.beside.verdict if r.beside else ""
        style = _VERDICTS[verdict]
        cost = [number(r.cost, ".4f")] if priced else []
        words = f"[{style}]{verdict}[/]" if style else verdict
        table.add(escape(_rival(r)), *_shares(r), number(r.p50), number(r.p95), *cost, words)
    table.print(console)
    console.print()
    for r in rows:
        for text in summary.sentences(r):
            wrapped(console, "", text)


_VERDICTS = {"better": "green", "worse": "red", "within noise": "dim", "": ""}


def _rival(row: Row) -> str:
    """The strategy, or how often the plain model was asked."""
    subject = row.subject
    times = f" x{subject.samples}" if subject.samples > 1 else ""
    return subject.strategy or f"(plain{times})"


def _shares(row: Row) -> tuple[str, ...]:
    """The shares of right answers and of those with effect, and what they cost."""
    low, high = row.interval
    share = f"{100 * low:.0f}-{100 * high:.0f}" if row.answered else "-"
    effect = f"{row.effective} of {row.judged}" if row.judged else ""
    right = f"{row.right}/{row.answered}"
    return right, share, effect, str(row.calls), short(row.tokens)


def waterfall(terminal: Terminal, model: str, trace: Trace) -> None:
    """One request, each of its calls as a bar where it was in time.

    Prompts and answers are below, where the trace holds them.
    """
    from rich.markup import escape
    from rich.text import Text

    console = terminal.out
    color = STATUS_STYLE["pass" if trace.status == 200 else "fail"]
    state = f"[{color}]{escape(f'{trace.status} {trace.code}'.rstrip())}[/]"
    tokens = f"{trace.prompt_tokens} + {trace.completion_tokens} tokens"
    at_once = f", {trace.at_once} at once" if trace.at_once > 1 else ""
    console.print()
    counts = f"{len(trace.calls)} calls{at_once}, {tokens}, {trace.seconds:.2f} s"
    wrapped(console, "", Text.from_markup(f"[bold]{escape(model)}[/]  {state}  {counts}"))
    _effect(terminal, trace)
    wide = max([len(c.purpose) for c in trace.calls], default=0)
    wide += max([len(" ".join(c.codes)) for c in trace.calls], default=0)
    full = "━" if console.encoding.startswith("utf") else "="
    drawn = _calls(trace, full, max(12, min(console.width, 120) - wide - 45))
    # the figures say the same as the bars
    shown = drawn if drawn.fits(console.width) else _calls(trace, full, 0)
    shown.print(console)
    _contents(terminal, trace)


_EFFECTS = {
    "full": ("full", STATUS_STYLE["pass"]),
    "weak": ("a part is lost", STATUS_STYLE["warn"]),
    "none": ("none", STATUS_STYLE["fail"]),
}


def _effect(terminal: Terminal, trace: Trace) -> None:
    """Whether the strategy had its effect, what it lost, and which fixes acted."""
    from optictl.proof import effect

    if trace.effect in _EFFECTS:
        words, style = _EFFECTS[trace.effect]
        fixed = f"; fixed: {', '.join(map(one_line, trace.fixed))}" if trace.fixed else ""
        wrapped(terminal.out, f"effect: [{style}]{words}[/]", fixed)
    for code in trace.degraded:
        text = effect.clause(effect.meaning(code).what)
        wrapped(terminal.out, "  ", f"{one_line(code)}: {text}")


def _form(trace: Trace) -> str:
    """As many digits as its seconds need."""
    return ".3f" if trace.span < 1 else ".2f" if trace.span < 100 else ".0f"


def _calls(trace: Trace, full: str, width: int) -> Table:
    """The calls of a request, with bars of at most `width` characters `full`, or without bars."""
    from rich.markup import escape

    from optictl.requests import tracing

    form = _form(trace)
    axis = "0 s".ljust(width - 8) + f"{trace.span:{form}} s".rjust(8)
    figures = ("at", "s", "in", "out")
    # only a call that lost something has codes
    codes = ["lost"] if any(call.codes for call in trace.calls) else []
    table = Table("call", *([axis] if width else []), *figures, "status", *codes, numbers=figures)
    for call in trace.calls:
        seconds = trace.lasted(call)
        before, length = tracing.bar(call.start, seconds, trace.span, width or 1)
        style = STATUS_STYLE["fail"] if call.failed else "yellow" if call.codes else "cyan"
        table.add(
            escape(call.purpose),
            *([f"{' ' * before}[{style}]{full * length}[/]"] if width else []),
            f"{call.start:{form}}",
            "open" if call.seconds is None else f"{seconds:{form}}",
            short(call.prompt_tokens),
            short(call.completion_tokens),
            f"[{style}]{escape(call.outcome)}[/]" if call.failed else call.outcome,
            *([f"[{STATUS_STYLE['warn']}]{escape(' '.join(call.codes))}[/]"] if codes else []),
        )
    return table


def _contents(terminal: Terminal, trace: Trace) -> None:
    """The prompts and answers of each call, where the trace holds them."""
    from rich.markup import escape

    console, form = terminal.out, _form(trace)
    for call in trace.calls if trace.messages is not None else ():
        console.print(f"\n[bold]{escape(call.purpose)}[/] [dim]at {call.start:{form}} s[/]")
        texts = [
            (str(message.get("role")), message.get("content")) for message in call.messages or ()
        ]
        for who, text in [*texts, *(("answer", text) for text in call.answers or ())]:
            lines = "\n".join(map(printable, str(text).splitlines()))
            console.print(f"[dim]{escape(who)}:[/] {escape(lines)}", soft_wrap=True)
