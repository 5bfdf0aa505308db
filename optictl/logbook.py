"""The service's journal as entries: the guard's JSON lines, and what systemd says about the unit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optictl import supervise
from optictl.paths import Paths

_BAD_EVENTS = {"refused", "defect", "crashed", "plugin_failed", "drain_over"}


@dataclass(frozen=True)
class Entry:
    """One line of the journal. `seconds` since the epoch; `event` is the guard's own JSON, {} for other text."""

    seconds: float
    text: str
    event: dict[str, Any]

    @property
    def bad(self) -> bool:
        """A failed request, a refusal or a problem."""
        if not self.event:
            return "Failed" in self.text or "refused" in self.text or "exited" in self.text
        return self.event.get("event") in _BAD_EVENTS or int(self.event.get("status") or 0) >= 400 or "level" in self.event

    def as_dict(self) -> dict[str, Any]:
        return {"time": self.seconds, "text": self.text, "event": self.event}


def entry(record: dict[str, Any]) -> Entry:
    """A record of `journalctl --output=json`. MESSAGE is a list of bytes where it is not text."""
    message = record.get("MESSAGE") or ""
    text = message if isinstance(message, str) else bytes(message).decode(errors="replace")
    event: dict[str, Any] = {}
    if text.startswith("{"):
        try:
            event = json.loads(text)
        except ValueError:
            event = {}
    return Entry(int(record.get("__REALTIME_TIMESTAMP") or 0) / 1e6, text, event if isinstance(event, dict) else {})


def read(paths: Paths, *, follow: bool, since: str | None, errors: bool, lines: int) -> Iterator[Entry]:
    """The newest `lines` entries, or those `since` a time; with `follow` also those to come.

    Raises:
        OptictlError: this deployment has no journal.
    """
    systemd = supervise.manager(paths)
    options = [f"--since={since}"] if since else [f"--lines={lines}"]
    records = systemd.follow(paths.service_unit, *options) if follow else systemd.journal(paths.service_unit, *options)
    for record in records:
        one = entry(record)
        if one.bad or not errors:
            yield one
