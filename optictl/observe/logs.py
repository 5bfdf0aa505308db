"""The log entries of a deployment's units: the guard's JSON lines, and systemd's messages."""

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
#: How the monitoring unit begins the line of a check that failed.
_BAD_RESULTS = ("fail ", "error ")
#: The least important entries of systemd that are shown of the monitoring unit: it starts and ends
#: every minute. Source: syslog(3), LOG_NOTICE.
_NOTICE = 5
#: A status such as 502, or a class of statuses such as 5xx.
_STATUS = re.compile(r"[1-5](\d\d|xx)", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One journal entry.

    `seconds`: since the epoch. `event`: the guard's JSON, {} for other text. `unit`: the unit that
    the entry is of, or about.
    """

    seconds: float
    text: str
    event: dict[str, Any]
    unit: str = ""

    @property
    def status(self) -> int:
        """The HTTP status of a request or a refusal, else 0."""
        status = self.event.get("status")
        return status if isinstance(status, int) else 0

    @property
    def trace(self) -> str:
        """The trace id of a request; older guards log an id only."""
        return str(self.event.get("trace") or self.event.get("id") or "")

    @property
    def effect(self) -> str:
        """The effect of a request's strategy: full, weak or none; "" if it was not judged."""
        return str(self.event.get("effect") or "")

    @property
    def codes(self) -> list[str]:
        """What a request's strategy lost of its effect."""
        codes = self.event.get("degraded")
        return [str(code) for code in codes] if isinstance(codes, list) else []

    @property
    def bad(self) -> bool:
        """Whether this is a failed request, a refusal or a problem."""
        if not self.event:
            words = ("Failed", "refused", "exited")
            return any(word in self.text for word in words) or self.text.startswith(_BAD_RESULTS)
        return self.event.get("event") in _BAD_EVENTS or self.status >= 400 or "level" in self.event

    def as_dict(self) -> dict[str, Any]:
        return {"time": self.seconds, "unit": self.unit, "text": self.text, "event": self.event}


@dataclass(frozen=True)
class Filter:
    """Which entries to show. All given criteria must match; of several statuses or strategies, one.

    A status is a number or a class such as 5xx; a trace may be the beginning of an id.
    """

    errors: bool = False
    strategies: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    trace: str = ""

    def takes(self, entry: Entry) -> bool:
        return (
            (not self.errors or entry.bad)
            and (not self.strategies or entry.event.get("strategy") in self.strategies)
            and (not self.statuses or any(_matches(entry.status, text) for text in self.statuses))
            and (not self.trace or entry.trace.startswith(self.trace))
        )


def is_status(text: str) -> bool:
    """Whether a text is a status (502) or a class of statuses (5xx)."""
    return bool(_STATUS.fullmatch(text))


def _matches(status: int, text: str) -> bool:
    return str(status) == text or (text.lower().endswith("xx") and str(status // 100) == text[0])


def entry(record: dict[str, Any]) -> Entry:
    """A record of `journalctl --output=json`.

    MESSAGE is a list of bytes if it is not valid text.
    """
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
        _about(record) or _of(record),
    )


def _about(record: dict[str, Any]) -> str:
    """The unit that an entry of systemd is about; "" for an entry of a unit's own process."""
    return str(record.get("UNIT") or record.get("USER_UNIT") or "")


def _of(record: dict[str, Any]) -> str:
    return str(record.get("_SYSTEMD_USER_UNIT") or record.get("_SYSTEMD_UNIT") or "")


def is_routine(record: dict[str, Any], paths: Paths) -> bool:
    """Whether a record says only that the monitoring unit started or ended, as every minute."""
    priority = str(record.get("PRIORITY") or "")
    return (
        _about(record) == paths.check_service.name
        and priority.isdigit()
        and int(priority) > _NOTICE
    )


def cells(entry: Entry) -> tuple[str, ...] | None:
    """A request or a refusal as cells of COLUMNS; None for other entries.

    Other fields are not shown.
    """
    event = entry.event
    if event.get("event") == "refused":
        return str(entry.status), str(event.get("code") or ""), "", "", "", "", entry.trace[:8], ""
    if event.get("event") != "request":
        return None
    tokens = sum(
        n
        for name in ("prompt_tokens", "completion_tokens")
        if isinstance(n := event.get(name), int)
    )
    seconds = event.get("seconds")
    return (
        str(entry.status),
        f"{event.get('strategy')}-{event.get('base_model')}",
        f"{seconds:.2f}" if isinstance(seconds, int | float) else "",
        str(event.get("upstream_calls", "")),
        str(event.get("upstream_failures", "")),
        str(tokens),
        entry.trace[:8],
        str(event.get("code") or _lost(entry)),
    )


def _lost(entry: Entry) -> str:
    """The codes of a strategy without its full effect."""
    words = "no effect" if entry.effect == "none" else "weak"
    return f"{words}: {','.join(entry.codes)}" if entry.codes else ""


#: Title and width of each cell (negative: left-aligned). With the time they fill 80 columns, except
#: for the error code of a failed request and the codes of one without its full effect.
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
    """Cells as one line. A long cell is not cut; it shifts the following ones."""
    pairs = zip(given, COLUMNS, strict=True)
    return " ".join(
        f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}" for cell, (_, width) in pairs
    ).rstrip()


def read(
    paths: Paths, criteria: Filter, *, follow: bool, since: str | None, lines: int
) -> Iterator[Entry]:
    """The newest `lines` matching entries, or those `since` a time; with `follow` also new ones.

    They are of every unit of the deployment.

    Raises:
        OptictlError: this deployment has no journal, or `since` is not a time.
    """
    systemd, names = units.manager(paths), paths.unit_names

    def matching(records: Iterable[dict[str, Any]]) -> Iterator[Entry]:
        told = (record for record in records if not is_routine(record, paths))
        return filter(criteria.takes, map(entry, told))

    if since:
        options = [f"--since={since}", *(["--follow", "--no-tail"] if follow else [])]
        try:
            yield from matching(systemd.stream_journal(names, *options))
        except ToolError as error:
            raise error.reworded(
                f"{error.what}: {error.output}",
                "--since takes '1 hour ago', 'today' or a time",
            ) from None
        return
    # read backwards until there are enough: matching entries may be rare
    backwards = systemd.stream_journal(names, "--reverse")
    first = next(backwards, {})
    records = itertools.chain([first] if first else [], backwards)
    newest = list(itertools.islice(matching(records), lines))
    backwards.close()
    yield from reversed(newest)
    if follow:
        after = f"--after-cursor={first['__CURSOR']}" if first else "--since=now"
        yield from matching(systemd.stream_journal(names, "--follow", "--no-tail", after))
