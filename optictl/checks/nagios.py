"""Results as a plugin for Nagios says them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from optictl.results import SEVERITY, Result, summary

#: Exit codes of a Nagios plugin.
OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3

_WORDS = {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}


def nagios_code(found: Sequence[Result]) -> int:
    """2 where something failed, 3 where a check itself did or none has seen anything, 1 for warnings, else 0."""
    statuses = {r.status for r in found}
    if "fail" in statuses:
        return CRITICAL
    if "error" in statuses or not statuses & {"pass", "warn"}:
        return UNKNOWN
    return WARNING if "warn" in statuses else OK


def _clean(text: str) -> str:
    """One line without the sign that begins the performance data."""
    return " ".join(text.replace("|", "/").split())


def nagios(found: Sequence[Result], seconds: float) -> str:
    """A Nagios plugin's line: the state, what is wrong, and performance data; `seconds` is how long the checks took."""
    code = nagios_code(found)
    warned = next((r for r in found if r.status == "warn"), None)
    text = (
        f"{warned.id}: {warned.found}. Mend: {warned.remedy}"
        if code == WARNING and warned
        else summary(found)
    )
    counts = " ".join(
        f"{status}={sum(r.status == status for r in found)};;;0" for status in SEVERITY
    )
    return f"OPTILLM {_WORDS[code]} - {_clean(text)} | time={seconds:.3f}s;;;0 {counts}\n"


@dataclass(frozen=True)
class Hysteresis:
    """What is held of a deployment that is judged again and again.

    `failed` is the verdict, `against` how many rounds in a row were of another opinion.
    """

    failed: bool = False
    against: int = 0

    def after(self, well: bool, fail_after: int, well_after: int) -> Hysteresis:
        """The same after one more round: the verdict changes once enough rounds in a row speak against it."""
        if well is not self.failed:
            return Hysteresis(self.failed)
        enough = well_after if self.failed else fail_after
        return (
            Hysteresis(self.failed, self.against + 1)
            if self.against + 1 < enough
            else Hysteresis(not self.failed)
        )

    def dump(self) -> str:
        return json.dumps({"failed": self.failed, "against": self.against}) + "\n"


def hysteresis(text: str | None) -> Hysteresis:
    """What an earlier round left; a fresh start where that is nothing, or no longer understood."""
    try:
        data = json.loads(text or "{}")
        return Hysteresis(data["failed"] is True, max(0, int(data["against"])))
    except (ValueError, TypeError, KeyError):
        return Hysteresis()
