"""The log file of a command that changes something.

Each run has a file. It is created with its final mode: only its owner can read it. It holds what
the command said, the programs that it ran, and how it ended; no secret is ever an argument of one.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

#: The files that stay; a new one takes the place of the oldest.
KEPT = 20
#: Texts that are kept in memory; a command that changes nothing never needs them.
_REMEMBERED = 1000


class RunLog:
    """Lines that are kept in memory until `open`, and in a file from then on."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._lines: deque[str] = deque(maxlen=_REMEMBERED)

    def open(self, directory: Path, command: str) -> None:
        """Begin the file. Where that is impossible, the command does its work without one."""
        if self.path is not None:
            return
        with suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
            _remove_surplus(directory)
            now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            path = directory / f"{now}-{command.replace(' ', '-')}-{os.getpid()}.log"
            # O_EXCL: it follows no link, and takes no file that another user made
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            os.close(descriptor)
            self.path = path
            self._append("".join(self._lines))
        self._lines.clear()

    def write(self, text: str) -> None:
        """Add a text with its time; each of its lines once."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lines = "".join(f"{at} {line}\n" for line in text.splitlines())
        if self.path is None:
            self._lines.append(lines)
        else:
            self._append(lines)

    def _append(self, text: str) -> None:
        assert self.path is not None
        with suppress(OSError), self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)

    def discard(self) -> None:
        """Remove all log files of the deployment and their directory: nothing of it stays."""
        if self.path is None:
            return
        with suppress(OSError):
            for path in self.path.parent.glob("*.log"):
                path.unlink()
            self.path.parent.rmdir()
        self.path = None


def _remove_surplus(directory: Path) -> None:
    for path in sorted(directory.glob("*.log"))[: -(KEPT - 1)]:
        path.unlink()
