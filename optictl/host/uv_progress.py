"""How far uv is with a release: what it says, and what is in the virtual environment so far."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optictl.host.repeating import repeating

#: What uv says besides errors; sources: uv's crates uv (commands/reporters.rs, pip/operations.rs).
_CHATTER = re.compile(
    r"\s*(Using |Resolved |Prepared |Downloading |Downloaded |Installed |Uninstalled |Audited |\+ )"
)
_SECONDS = 1.0


def without_chatter(output: str) -> str:
    """What uv printed without the lines that tell how far it is."""
    return "".join(line for line in output.splitlines(True) if not _CHATTER.match(line))


class Installing:
    """An installation into a virtual environment, watched from outside.

    `detail` gets a line such as "12 of 54 packages, 84 MB" every second.
    """

    def __init__(self, venv: Path, detail: Callable[[str], None]) -> None:
        self._venv, self._detail = venv, detail
        self._total, self._download = 0, ""

    def heard(self, line: str) -> None:
        """A line of uv's."""
        if found := re.match(r"Resolved (\d+) packages?", line):
            self._total = int(found[1])
        elif found := re.match(r"\s*Downloading (\S+ \([^)]*\))", line):
            self._download = f"downloading {found[1]}"
            self._tell()
        elif re.match(r"Prepared ", line):
            self._download = ""

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tell how far it is while the block runs."""
        with repeating(self._tell, _SECONDS, "uv progress"):
            yield

    def _tell(self) -> None:
        packages, size = installed(self._venv)
        of = f" of {self._total}" if self._total > packages else ""
        parts = [f"{packages}{of} packages", f"{size / 1e6:.0f} MB", self._download]
        self._detail(", ".join(filter(None, parts)))


def installed(venv: Path) -> tuple[int, int]:
    """How many packages are in a virtual environment, and how many bytes its files have."""
    packages = size = 0
    directories = [str(venv / "lib")]
    while directories:
        # files appear and disappear while it is read
        with suppress(OSError), os.scandir(directories.pop()) as entries:
            for entry in entries:
                packages += entry.name.endswith(".dist-info")
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                else:
                    size += entry.stat(follow_symlinks=False).st_size
    return packages, size
