"""What is being done now: a moving line on a terminal, plain lines or JSON lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from optictl.host.repeating import repeating
from optictl.output.figures import span

if TYPE_CHECKING:
    from rich.text import Text

#: `auto` moves on a terminal and is `plain` elsewhere.
Form = Literal["auto", "plain", "json", "off"]
#: Seconds without a line after which one says that the work goes on.
SILENCE = 30.0
#: Seconds after which a moving line tells how long it moves.
_SOON = 3.0


@dataclass(frozen=True)
class Steps:
    """Takes a line for each step. `detail` takes one that replaces the one before it: a count."""

    say: Callable[[str], None]
    detail: Callable[[str], None]

    def __call__(self, text: str) -> None:
        self.say(text)


class Moving:
    """A line that moves: what is done, its detail, and for how long. Rich draws it."""

    def __init__(self, title: str) -> None:
        from rich.spinner import Spinner

        self.title, self.detail = title, ""
        self._spinner, self._since = Spinner("dots", style="status.spinner"), time.monotonic()

    def __rich__(self) -> Text:
        from rich.text import Text

        now = time.monotonic()
        frame = self._spinner.render(now)
        assert isinstance(frame, Text)
        seconds = now - self._since
        details = [self.detail, span(seconds) if seconds >= _SOON else ""]
        text = f"{self.title} ... {', '.join(filter(None, details))}".rstrip()
        return Text.assemble(frame, " ", text, no_wrap=True, overflow="ellipsis")


class Heart:
    """Says that work goes on where nothing moves and nothing was said for a while."""

    def __init__(self, title: str, say: Callable[[str, float], None], silence: float) -> None:
        self.title, self.detail = title, ""
        self._say, self._silence = say, silence
        self._since = self._last = time.monotonic()

    def said(self, text: str) -> None:
        """A line was printed."""
        self._last, self.detail = time.monotonic(), text

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Watch the silence while the block runs."""
        with repeating(self._look, min(1.0, self._silence / 4), "progress"):
            yield

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._last >= self._silence:
            self._last = now
            words = f"still {self.title}" + (f": {self.detail}" if self.detail else "")
            self._say(words, now - self._since)


def json_line(command: str, event: str, text: str, **more: float | str) -> str:
    """One line of `--progress json`. `event`: step, waiting, note or error."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"time": at, "command": command, "event": event, "text": text, **more}
    return json.dumps(line, ensure_ascii=False)
