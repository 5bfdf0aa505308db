"""The results of checks and requests: the items of the JSON envelope's `results`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "skip", "error"]
#: Takes a line about what is being done now.
Progress = Callable[[str], None]


def detail_of(progress: Progress) -> Progress:
    """Takes a line that replaces the one before it, such as a count. It does nothing where a
    progress has no place for one.
    """
    detail: Progress = getattr(progress, "detail", lambda text: None)
    return detail


#: From good to bad; a result is as bad as its worst finding.
SEVERITY: tuple[Status, ...] = ("pass", "skip", "warn", "fail", "error")
FAILED: tuple[Status, ...] = ("fail", "error")
#: How much of a cause a summary quotes; a crash may print pages.
_CAUSE_LENGTH = 200


@dataclass(frozen=True)
class Result:
    """The result of one check or one request.

    `expected` and `found` are words for people; `data` is for programs. `fault` says what a failure
    means, as a sentence without its full stop; `felt`: clients notice it. `root_cause` is the id
    of the result that explains a failed or a skipped one: its own where no other does, "" where
    nothing is wrong. `alone`: no other result explains this one. `applies`: False where a check was
    skipped because it has nothing to ask of this deployment.
    """

    id: str
    title: str
    status: Status
    expected: str = ""
    found: str = ""
    cause: str = ""
    remedy: str = ""
    data: dict[str, Any] | None = None
    fault: str = ""
    felt: bool = False
    root_cause: str = ""
    alone: bool = False
    applies: bool = True

    @property
    def failed(self) -> bool:
        return self.status in FAILED

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape. `data`, `fault` and `root_cause` only where they hold something, and
        `applies` only where it is false.
        """
        fields = asdict(self)
        del fields["felt"], fields["alone"]
        for name, has_value in (
            ("data", self.data is not None),
            ("fault", self.failed and self.fault),
            ("root_cause", self.root_cause),
            ("applies", not self.applies),
        ):
            if not has_value:
                del fields[name]
        return fields


def good(results: Iterable[Result]) -> bool:
    """Whether nothing failed. A skipped check is no failure, and no pass either."""
    return not any(result.failed for result in results)


def is_proven(results: Iterable[Result]) -> bool:
    """Whether nothing failed and something was checked: skipped results alone prove nothing."""
    seen = list(results)
    return good(seen) and any(result.status in ("pass", "warn") for result in seen)


def roots(results: Sequence[Result]) -> list[Result]:
    """The failures that no other one explains; those that explain most come first."""
    explained = Counter(r.root_cause for r in results if r.root_cause != r.id)
    return sorted(
        (r for r in results if r.failed and r.root_cause in ("", r.id)),
        key=lambda r: -explained[r.id],
    )


def _passed(results: Sequence[Result]) -> str:
    """How many of the checks that apply passed."""
    if not is_proven(results):
        return "Nothing was checked"
    passed, counted = (
        sum(r.status == "pass" for r in results),
        sum(r.applies for r in results),
    )
    return f"{passed} of {counted} checks passed" if passed < counted else "All good"


def _noticed(results: Sequence[Result], root: Result) -> Result:
    """The consequence of a failure that clients notice, or the failure itself."""
    return next((r for r in results if r.failed and r.felt and r.root_cause == root.id), root)


def summary(results: Sequence[Result]) -> str:
    """One line: what is wrong, why, and what fixes it; or how many checks passed."""
    if good(results):
        return _passed(results)
    root, *others = roots(results)
    # clients notice the consequence, the operator fixes the root
    noticed = _noticed(results, root)
    cause = " ".join(root.cause.split())
    cause = f"{cause[:_CAUSE_LENGTH]}..." if len(cause) > _CAUSE_LENGTH else cause
    line = f"{noticed.fault or noticed.id}: {root.found}{f' ({cause})' if cause else ''}."
    if root.remedy:
        line += f" Fix: {root.remedy}"
    if others:
        line += f" (also failed: {', '.join(r.id for r in others)})"
    return line


def headline(results: Sequence[Result]) -> str:
    """What is wrong and the check that explains it, where the check's own words stand above."""
    if good(results):
        return _passed(results)
    root, *others = roots(results)
    noticed = _noticed(results, root)
    line = f"{noticed.fault}: see {root.id}" if noticed.fault else f"{noticed.id} failed"
    if others:
        line += f" (also failed: {', '.join(r.id for r in others)})"
    return line
