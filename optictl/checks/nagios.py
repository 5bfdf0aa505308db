"""Results in the format of a Nagios plugin, and the hysteresis of `check --fail-after`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from optictl.results import SEVERITY, Result, summary

#: Exit codes of a Nagios plugin.
OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3

_WORDS = {OK: "OK", WARNING: "WARNING", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}


def nagios_code(results: Sequence[Result]) -> int:
    """2 if a check failed.

    3 if a check ended with an error, or all were skipped; 1 for warnings; else 0.
    """
    statuses = {r.status for r in results}
    if "fail" in statuses:
        return CRITICAL
    if "error" in statuses or not statuses & {"pass", "warn"}:
        return UNKNOWN
    return WARNING if "warn" in statuses else OK


def _clean(text: str) -> str:
    """One line without `|`, which begins the performance data."""
    return " ".join(text.replace("|", "/").split())


def nagios(results: Sequence[Result], deployment: str, seconds: float) -> str:
    """The output line of a Nagios plugin: state, deployment, problem, performance data.

    `seconds`: how long the checks took.
    """
    code = nagios_code(results)
    warned = next((r for r in results if r.status == "warn"), None)
    text = (
        f"{warned.id}: {warned.found}. Fix: {warned.remedy}"
        if code == WARNING and warned
        else summary(results)
    )
    counts = " ".join(
        f"{status}={sum(r.status == status for r in results)};;;0" for status in SEVERITY
    )
    said = f"OPTILLM {_WORDS[code]} - {deployment}: {_clean(text)}"
    return f"{said} | time={seconds:.3f}s;;;0 {counts}\n"


@dataclass(frozen=True)
class Hysteresis:
    """Delays a change of the verdict until enough consecutive rounds agree on it.

    `failed`: the current verdict. `against`: how many consecutive rounds disagreed with it.
    """

    failed: bool = False
    against: int = 0

    def after(self, well: bool, fail_after: int, well_after: int) -> Hysteresis:
        """The state after one more round; the verdict changes after enough consecutive rounds."""
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
    """The state that an earlier round stored.

    The initial state if the text is missing or invalid.
    """
    try:
        data = json.loads(text or "{}")
        return Hysteresis(data["failed"] is True, max(0, int(data["against"])))
    except (ValueError, TypeError, KeyError):
        return Hysteresis()
