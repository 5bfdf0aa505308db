"""The service's journal as entries: the guard's JSON lines, and what systemd says about the unit."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from optictl.deployment.paths import Paths
from optictl.errors import ToolError
from optictl.facts import units

_BAD_EVENTS = {"refused", "defect", "crashed", "plugin_failed", "drain_over"}
#: 502, or every status that begins with a digit: 5xx.
_STATUS = re.compile(r"[1-5](\d\d|xx)", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One line of the journal. `seconds` since the epoch; `event` is the guard's own JSON, {} for other text."""

    seconds: float
    text: str
    event: dict[str, Any]

    @property
    def status(self) -> int:
        """The status of a request or a refusal, else 0."""
        status = self.event.get("status")
        return status if isinstance(status, int) else 0

    @property
    def trace(self) -> str:
        """By which a request is known; a guard of before there were traces gives it an id alone."""
        return str(self.event.get("trace") or self.event.get("id") or "")

    @property
    def bad(self) -> bool:
        """A failed request, a refusal or a problem."""
        if not self.event:
            return "Failed" in self.text or "refused" in self.text or "exited" in self.text
        return self.event.get("event") in _BAD_EVENTS or self.status >= 400 or "level" in self.event

    def as_dict(self) -> dict[str, Any]:
        return {"time": self.seconds, "text": self.text, "event": self.event}


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted: everything that is given must fit, of several statuses or strategies one.

    A status is a number or such as 5xx; a trace may be the beginning of one.
    """

    errors: bool = False
    strategies: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    trace: str = ""

    def takes(self, entry: Entry) -> bool:
        return (
            (not self.errors or entry.bad)
            and (not self.strategies or entry.event.get("strategy") in self.strategies)
            and (not self.statuses or any(_fits(entry.status, wanted) for wanted in self.statuses))
            and (not self.trace or entry.trace.startswith(self.trace))
        )


def is_status(text: str) -> bool:
    """Whether a text can be looked for as a status."""
    return bool(_STATUS.fullmatch(text))


def _fits(status: int, wanted: str) -> bool:
    return str(status) == wanted or (
        wanted.lower().endswith("xx") and str(status // 100) == wanted[0]
    )


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
    return Entry(
        int(record.get("__REALTIME_TIMESTAMP") or 0) / 1e6,
        text,
        event if isinstance(event, dict) else {},
    )


def cells(one: Entry) -> tuple[str, ...] | None:
    """A request or a refusal as cells of COLUMNS, None for any other entry. Only what is named here is shown."""
    event = one.event
    if event.get("event") == "refused":
        return str(one.status), str(event.get("code") or ""), "", "", "", "", one.trace[:8], ""
    if event.get("event") != "request":
        return None
    tokens = sum(
        n
        for name in ("prompt_tokens", "completion_tokens")
        if isinstance(n := event.get(name), int)
    )
    seconds = event.get("seconds")
    return (
        str(one.status),
        f"{event.get('strategy')}-{event.get('base_model')}",
        f"{seconds:.2f}" if isinstance(seconds, int | float) else "",
        str(event.get("upstream_calls", "")),
        str(event.get("upstream_failures", "")),
        str(tokens),
        one.trace[:8],
        str(event.get("code") or ""),
    )


#: Title and width of each cell; with the time they fill a line of 80, but for the error code of a request that failed.
COLUMNS = (
    ("st.", -3),
    ("model", -25),
    ("seconds", 8),
    ("calls", 5),
    ("bad", 3),
    ("tokens", 7),
    ("trace", -8),
    ("", 0),
)


def line(given: Iterable[str]) -> str:
    """Cells at their places; what is too long pushes the others aside and is not cut."""
    pairs = zip(given, COLUMNS, strict=True)
    return " ".join(
        f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}" for cell, (_, width) in pairs
    ).rstrip()


def read(
    paths: Paths, wanted: Filter, *, follow: bool, since: str | None, lines: int
) -> Iterator[Entry]:
    """The newest `lines` wanted entries, or those `since` a time; with `follow` also those to come.

    Raises:
        OptictlError: this deployment has no journal, or `since` is no time.
    """
    systemd, unit = units.manager(paths), paths.service_unit
    if since:
        options = [f"--since={since}", *(["--follow", "--no-tail"] if follow else [])]
        try:
            yield from filter(wanted.takes, map(entry, systemd.stream_journal(unit, *options)))
        except ToolError as error:
            raise error.reworded(
                f"{error.what}: {error.output}",
                "--since takes '1 hour ago', 'today' or a time",
            ) from None
        return
    # backwards, until there are enough: what is wanted may be rare
    backwards = systemd.stream_journal(unit, "--reverse")
    first = next(backwards, {})
    found = (
        one
        for one in map(entry, itertools.chain([first] if first else [], backwards))
        if wanted.takes(one)
    )
    newest = list(itertools.islice(found, lines))
    backwards.close()
    yield from reversed(newest)
    if follow:
        after = f"--after-cursor={first['__CURSOR']}" if first else "--since=now"
        yield from filter(
            wanted.takes, map(entry, systemd.stream_journal(unit, "--follow", "--no-tail", after))
        )
