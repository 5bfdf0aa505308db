"""Releases, new locks and what a canary did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optictl.output.console import STATUS_STYLE, Report, Terminal, one_line, wrapped
from optictl.output.tables import Table
from optictl.results import Result

if TYPE_CHECKING:
    from optictl.operations.canary import Proof
    from optictl.operations.resolve import Resolution
    from optictl.releases.store import StoredRelease


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
        if resolution.unknown:
            console.print("[bold yellow]The guard will refuse to run on it.[/]")


@dataclass
class LockPlan(Report):
    """A lock that would be kept."""

    target: str
    resolution: Resolution | None = None

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [self.resolution.as_dict()] if self.resolution else []

    def show(self, terminal: Terminal) -> None:
        terminal.note(f"the lock would be kept as {self.target}")


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


def _figures(result: Result | None) -> list[str]:
    data = (result.data if result else None) or {}
    if not data:
        return ["", "", ""]
    seconds = data["latency_ms"] / 1000
    return [str(data["upstream_calls"]), str(data["tokens"]["total"]), f"{seconds:.2f}"]


@dataclass
class Switched(Report):
    """How an upgrade or a rollback ended. `next`: the line about the command that follows."""

    release: str
    changed: bool
    switched: bool
    proofs: Sequence[Proof] = field(default_factory=list)
    next: str = ""

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [r.as_dict() for proof in self.proofs for r in proof.new]

    def more(self, terminal: Terminal) -> dict[str, Any]:
        beside = [r.as_dict() for proof in self.proofs for r in proof.current]
        return {"release": self.release, "current": beside, "switched": self.switched}

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
