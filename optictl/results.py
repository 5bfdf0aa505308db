"""What commands find and do: the items of the JSON envelope's `results`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "skip", "error"]
#: From good to bad; a result is as bad as its worst finding.
SEVERITY: tuple[Status, ...] = ("pass", "skip", "warn", "fail", "error")


@dataclass(frozen=True)
class Result:
    """One thing looked at. `expected` and `found` are words for people; `data` is for programs."""

    id: str
    title: str
    status: Status
    expected: str = ""
    found: str = ""
    cause: str = ""
    remedy: str = ""
    data: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape; `data` only where there is some."""
        fields = asdict(self)
        if self.data is None:
            del fields["data"]
        return fields


def good(results: Iterable[Result]) -> bool:
    """Whether nothing failed. A skipped check is no failure, and no pass either."""
    return all(result.status not in ("fail", "error") for result in results)
