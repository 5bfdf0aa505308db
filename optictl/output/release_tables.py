"""Releases, new locks and what a canary did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optictl.output.console import STATUS_STYLE, Report, Terminal, one_line, wrapped
from optictl.output.plans import Plan
from optictl.output.tables import Table
from optictl.results import Result

if TYPE_CHECKING:
    from optictl.errors import OptictlError
    from optictl.operations.canary import Proof
    from optictl.operations.resolve import Resolution
    from optictl.releases.store import StoredRelease
    from optictl.releases.versions import Offers


@dataclass
class NewLock(Report):
    """A new lock: what it changes in the closure, and in what the guard relies on."""

    resolution: Resolution

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [self.resolution.as_dict()]

    def show(self, terminal: Terminal) -> None:

        resolution, console = self.resolution, terminal.out
        console.print("[bold]the closure[/]")
        for line in resolution.closure:
            wrapped(console, "  ", line)
        console.print("[bold]what the guard relies on[/]")
        for name, diff in resolution.internals.items():
            known = "not known to the guard" if name in resolution.unknown else "known to the guard"
            wrapped(console, "  ", f"{name} changed ({known})")
            if name in resolution.unknown:
                console.print(diff, markup=False, style="dim", soft_wrap=True)
        if not resolution.internals:
            console.print("  nothing changed")
        if resolution.unknown and not resolution.refused:
            words = "A conformance run after the build decides whether the guard's promises hold."
            wrapped(console, "", words)


@dataclass
class LockPlan(Report):
    """An upgrade with a lock that would be kept."""

    target: str
    plan: Plan
    resolution: Resolution | None = None

    @property
    def ok(self) -> bool:  # type: ignore[override]
        return self.plan.ok

    @property
    def exit_code(self) -> int:
        return self.plan.exit_code

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [self.resolution.as_dict()] if self.resolution else []

    def more(self, terminal: Terminal) -> dict[str, Any]:
        return {"plan": self.plan.results(terminal), **self.plan.more(terminal)}

    def show(self, terminal: Terminal) -> None:
        self.plan.show(terminal)
        terminal.note(f"the lock would be kept as {self.target}")


@dataclass
class RefusedLock(Report):
    """A new lock that leads to a release that is refused. People have seen the lock."""

    resolution: Resolution
    error: OptictlError
    ok = False

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [self.resolution.as_dict()]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        error = self.error.as_dict()
        return {"error": {**error, "remedy": terminal.spell(self.error.remedy)}}

    def show(self, terminal: Terminal) -> None:
        terminal.error(self.error)


@dataclass
class Comparison(Report):
    """What each strategy did in a new release, beside the active release."""

    proof: Proof

    def show(self, terminal: Terminal) -> None:
        from rich.markup import escape

        before = {r.id: r for r in self.proof.current}
        titles = ("", "model", "calls", "tokens", "s", "before", "tokens", "s")
        shown = Table(*titles, numbers=titles[2:], heads=2)
        for r in self.proof.new:
            status = f"[{STATUS_STYLE[r.status]}]{r.status}[/]"
            shown.add(status, escape(r.id), *_figures(r), *_figures(before.get(r.id)))
        shown.print(terminal.out)
        for r in self.proof.new:
            if r.status != "pass":
                _explain(terminal, r)


def _explain(terminal: Terminal, result: Result) -> None:
    """What the table leaves out: what was found, and what helps."""
    from rich.markup import escape

    wrapped(terminal.out, f"[{STATUS_STYLE[result.status]}]{escape(result.id)}[/]", "")
    wrapped(terminal.out, "  ", one_line(result.found))
    if result.remedy:
        # a command that is broken into lines cannot be pasted
        remedy = escape(one_line(terminal.spell(result.remedy)))
        terminal.out.print(f"  [dim]fix[/]  {remedy}", soft_wrap=True)


def _figures(result: Result | None) -> list[str]:
    data = (result.data if result else None) or {}
    if not data:
        return ["", "", ""]
    seconds = data["latency_ms"] / 1000
    return [str(data["upstream_calls"]), str(data["tokens"]["total"]), f"{seconds:.2f}"]


@dataclass
class Switched(Report):
    """How an upgrade or a rollback ended. `next`: the line about the command that follows.

    `problems`: the notes of its plan.
    """

    release: str
    changed: bool
    switched: bool
    proofs: Sequence[Proof] = field(default_factory=list)
    next: str = ""
    problems: Sequence[Result] = ()

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [r.as_dict() for proof in self.proofs for r in terminal.spelled(proof.new)]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        beside = [r.as_dict() for proof in self.proofs for r in proof.current]
        more = {"release": self.release, "current": beside, "switched": self.switched}
        if self.problems:
            more["problems"] = [r.as_dict() for r in terminal.spelled(self.problems)]
        return more

    def show(self, terminal: Terminal) -> None:
        if self.changed or not self.switched:
            state = "active" if self.switched else "proven and was not activated"
            terminal.message(f"{self.release} is {state}.")
        if self.changed and self.next:
            terminal.message(self.next)


@dataclass
class Built(Report):
    """A release that was built and not activated."""

    release: str

    def more(self, terminal: Terminal) -> dict[str, Any]:
        return {"release": self.release, "switched": False}

    def show(self, terminal: Terminal) -> None:
        terminal.message(f"{self.release} is built and was not activated.")


_STATE_STYLE = {"active": "green", "failed": "bold red", "half-built": "yellow"}


@dataclass
class Releases(Report):
    """The releases on the disk."""

    stored: Sequence[StoredRelease]

    def results(self, terminal: Terminal) -> list[Any]:
        return [release.as_dict() for release in self.stored]

    def show(self, terminal: Terminal) -> None:
        from rich.markup import escape

        if not self.stored:
            terminal.message("No release is installed.")
            return
        titles = ("release", "state", "verified", "profile", "closure", "built", "MB")
        shown = Table(*titles, numbers=("MB",))
        for release in self.stored:
            style = _STATE_STYLE.get(release.state, "")
            state = f"[{style}]{release.state}[/]" if style else release.state
            built, size = release.built[:16].replace("T", " "), f"{release.size / 1e6:.0f}"
            verified = release.verification.words if release.verification else ""
            words = (verified, release.profile, release.closure, built, size)
            shown.add(escape(release.name), state, *map(escape, words))
        shown.print(terminal.out)
        for release in self.stored:
            if release.failure is not None:
                head = f"[bold]{escape(release.name)}[/] failed: "
                wrapped(terminal.out, head, one_line(str(release.failure)))


@dataclass
class Versions(Report):
    """The versions of OptiLLM, and the newest one on the index."""

    offers: Offers

    def results(self, terminal: Terminal) -> list[Any]:
        return [offer.as_dict() for offer in self.offers.versions]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        return {"index": {"newest": self.offers.newest, "problem": self.offers.problem}}

    def show(self, terminal: Terminal) -> None:
        from rich.markup import escape

        shown = Table("version", "lock", "verified", "state", "release")
        for offer in self.offers.versions:
            style = _STATE_STYLE.get(offer.state, "")
            state = f"[{style}]{offer.state}[/]" if style else offer.state
            lock = "" if offer.lock == "none" else offer.lock
            words = (lock, offer.verification.words)
            shown.add(escape(offer.version), *words, state, escape(offer.release))
        shown.print(terminal.out)
        if self.offers.newest:
            terminal.message(f"The newest on the package index is {self.offers.newest}.")
        else:
            terminal.message(f"The package index cannot be asked: {self.offers.problem}")
