"""What `optictl init` wrote, kept and took over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optictl.deployment.paths import name_problem
from optictl.output.console import Report, Terminal

if TYPE_CHECKING:
    from optictl.deployment.paths import Paths
    from optictl.operations.initialize import Initialized
    from optictl.takeover.handmade import HandMade

_VERDICTS = {"take": "taken", "leave": "not taken", "differ": "differs"}


@dataclass
class InitReport(Report):
    """The files that `init` made, and the values of a hand-made unit.

    With `dry_run`: the files that it would make.
    """

    done: Initialized
    paths: Paths
    dry_run: bool = False

    def results(self, terminal: Terminal) -> list[dict[str, str]]:
        items = [{**change.as_dict(), "diff": ""} for change in self.done.made]
        items += [_item("keep", str(path), "it exists") for path in self.done.kept]
        items += self._values()
        for other in self.done.others:
            remedy = terminal.spell(_take_over(other))
            item = _item("other", str(other.path), "it runs OptiLLM")
            items.append({**item, "remedy": remedy})
        return items

    def show(self, terminal: Terminal) -> None:
        made = "would create" if self.dry_run else "created "
        for change in self.done.made:
            terminal.message(f"{made} {change.target}")
        for path in self.done.kept:
            terminal.message(f"kept     {path}")
        for line in self._proposal():
            terminal.message(line)
        for other in self.done.others:
            terminal.message(
                f"\n{other.unit} runs OptiLLM and is not optictl's. {_take_over(other)}"
            )
        terminal.message(f"\nNext: {self._next()}")

    def _proposal(self) -> Iterator[str]:
        """What was read from a hand-made unit, for people."""
        if self.done.service is None or self.done.proposal is None:
            return
        path = self.done.service.path
        yield f"\n{path} was not written by optictl. Its values:"
        for item in self._values():
            reason = item["reason"].replace(f" in {path}:", ", line ")
            yield f"{_VERDICTS[item['action']]:<10} {item['target']}: {reason}"
            if remedy := item.get("remedy"):
                yield f"{'':<10} -> {remedy}"

    def _values(self) -> list[dict[str, str]]:
        """Each value of the hand-made unit, and whether the deployment gets it."""
        done, proposal = self.done, self.done.proposal
        if proposal is None:
            return []
        kept = {path.name for path in done.kept}
        items = []
        if "optictl.yaml" not in kept:
            for setting in proposal.settings:
                reason = f"{_text(setting.value)} ({setting.where})"
                items.append(("take", setting.key, reason, ""))
        if proposal.proxy_key and "proxy_key" not in kept:
            items.append(("take", "proxy_key", proposal.key_where, ""))
        if proposal.upstream_key and "env" not in kept:
            items.append(("take", "OPENAI_API_KEY", proposal.upstream_where, ""))
        for setting, value in done.differences:
            unit = f"{_text(setting.value)} in the unit ({setting.where})"
            reason = f"{unit}, {_text(value)} in optictl.yaml"
            items.append(("differ", setting.key, reason, "edit optictl.yaml, if the unit is right"))
        items += [("leave", n.what, n.why, n.remedy) for n in done.not_taken]
        return [
            {**_item(action, target, reason), "remedy": remedy}
            for action, target, reason, remedy in items
        ]

    def _next(self) -> str:
        """The commands that follow."""
        paths, proposal = self.paths, self.done.proposal
        has_key = proposal is not None and (
            proposal.upstream_key or proposal.upstream_where == str(paths.env)
        )
        key = f"write LiteLLM's key into {paths.env} (OPENAI_API_KEY=...), then: "
        write = "" if has_key else key
        if proposal is None:
            return f"{write}{paths.command('install')}"
        shows, does = paths.command("install --dry-run"), paths.command("install --force")
        return f"{write}{shows} shows what changes; {does} replaces the unit"


def _item(action: str, target: str, reason: str) -> dict[str, str]:
    return {"action": action, "target": target, "reason": reason, "diff": ""}


def _take_over(other: HandMade) -> str:
    """What to do about a unit of another name."""
    name = other.unit.removesuffix(".service")
    if problem := name_problem(name):
        return f"optictl cannot take it over under that name: it {problem}."
    return f"To take that one over: optictl init --name {name}"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
