"""What a wheelhouse has, or would get."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optictl.output.console import Report, Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from optictl.releases.targets import Pin, Target
    from optictl.releases.wheelhouse import Wheelhouse


@dataclass
class NewWheelhouse(Report):
    """A wheelhouse that was filled.

    `python`: with the commands to install from it, for the version of CPython of the host.
    """

    made: Wheelhouse
    python: str = ""

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        return [{"id": self.made.target, "status": "pass", "data": self.made.as_dict()}]

    def show(self, terminal: Terminal) -> None:
        size = sum(file.size for file in self.made.files) / 1e6
        count = len(self.made.files)
        terminal.message(f"{self.made.directory}: {count} files, {size:.0f} MB")
        if self.python:
            terminal.message(
                f"\nCopy it to the host ({self.made.target}). There, with python{self.python}:"
            )
            for line in self._on_the_host():
                terminal.example(f"  {line}")

    def _on_the_host(self) -> list[str]:
        """The commands that install from a copy of the same name."""
        name = shlex.quote(self.made.directory.name)
        requirements = f"{name}/{self.made.requirements}"
        return [
            f"sudo python{self.python} -m venv /opt/optictl",
            f"sudo /opt/optictl/bin/pip install --no-index --find-links {name} -r {requirements}",
            f"sudo /opt/optictl/bin/optictl install --wheelhouse {name} "
            f"--python /usr/bin/python{self.python}",
        ]


@dataclass
class PlannedWheelhouse(Report):
    """The wheels that `--dry-run` would download."""

    directory: Path
    target: Target
    missing: Sequence[Pin]
    total: int

    def results(self, terminal: Terminal) -> list[dict[str, Any]]:
        data = {
            "directory": str(self.directory),
            "target": self.target.name,
            "missing": [f"{pin.name}=={pin.version}" for pin in self.missing],
            "present": self.total - len(self.missing),
        }
        return [{"id": self.target.name, "status": "pass", "data": data}]

    def show(self, terminal: Terminal) -> None:
        for pin in self.missing:
            terminal.message(f"download {pin.name} {pin.version}")
        present = self.total - len(self.missing)
        terminal.message(
            f"{self.directory}: {len(self.missing)} wheels to download, {present} are there, "
            f"for {self.target.name}"
        )
