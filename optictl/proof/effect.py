"""Whether a strategy had its effect, from the headers that the guard adds to an answer. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optictl.guard.judgement import CODES, Code
from optictl.results import Status

#: The headers that `read` needs, without x-optillm-.
HEADERS = ("effect", "degraded", "fixed", "samples", "ratings", "agreement", "evidence")
#: No scale of ratings goes further.
_LARGEST = 1e6
_LEVELS = ("full", "weak", "none")
#: Behind one of these, one distinct sample does not show that the upstream ignores temperature.
_FEW_SAMPLES = frozenset({"candidates_missing", "samples_empty", "step_failed", "step_empty"})


@dataclass(frozen=True)
class Share:
    """A part of a whole, such as 2 distinct samples of 3."""

    part: int
    whole: int


@dataclass(frozen=True)
class Effect:
    """What the guard saw of a strategy's effect.

    `level`: full, weak or none; "" if nothing was judged. `samples`: distinct of those asked for.
    `agreement`: samples that agree, of all. `evidence`: facts for people, without content.
    """

    level: str = ""
    codes: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    samples: Share | None = None
    ratings: tuple[float | None, ...] | None = None
    agreement: Share | None = None
    evidence: str = ""

    @property
    def status(self) -> Status:
        """fail without effect, warn with a part of it."""
        if self.level == "none" or any(_is_degrading(code) for code in self.codes):
            return "fail"
        return "warn" if self.level == "weak" or self.codes else "pass"

    @property
    def telling(self) -> tuple[str, ...]:
        """The codes that explain the status: where one is degraded, the weak ones do not count."""
        degrading = tuple(code for code in self.codes if _is_degrading(code))
        return degrading or self.codes

    @property
    def words(self) -> list[str]:
        """What the status means, a clause for each code."""
        if self.status == "pass":
            return []
        return [f"{clause(meaning(code).what)} ({code})" for code in self.telling] or [
            "the service saw no effect" if self.status == "fail" else "a part of the effect is lost"
        ]

    @property
    def fixes(self) -> list[str]:
        """What helps, each thing once."""
        return list(dict.fromkeys(meaning(code).fix for code in self.telling))

    @property
    def is_deterministic(self) -> bool:
        """Whether the upstream gave the same text each time, at a temperature above 0."""
        several = self.samples is not None and self.samples.part == 1 < self.samples.whole
        return several and not _FEW_SAMPLES.intersection(self.codes)

    @property
    def determinism(self) -> str:
        """In words that the upstream is deterministic, or ""."""
        if not self.is_deterministic or self.samples is None:
            return ""
        return (
            f"all {self.samples.whole} samples are the same text: the upstream is deterministic"
            " (it ignores temperature, or a cache answers), and equal samples are no mixture"
        )

    def as_dict(self) -> dict[str, Any]:
        """The fields of JSON."""
        samples, agreement = self.samples, self.agreement
        return {
            "effect": self.level,
            "codes": list(self.codes),
            "fixed": list(self.fixed),
            "samples": samples and {"distinct": samples.part, "asked": samples.whole},
            "ratings": None if self.ratings is None else list(self.ratings),
            "agreement": agreement and {"agreeing": agreement.part, "samples": agreement.whole},
            "evidence": self.evidence,
        }


def clause(sentence: str) -> str:
    """A sentence of the table of codes, to be used within another one."""
    return sentence[:1].lower() + sentence[1:]


def meaning(code: str) -> Code:
    """What a code means. The guard of a newer release may send one that is not known here."""
    return CODES.get(code) or Code(
        "weak",
        "The service reports a loss that this optictl does not know",
        "update optictl: the active release is newer",
    )


def _is_degrading(code: str) -> bool:
    return meaning(code).level == "degraded"


def read(headers: Mapping[str, str | None]) -> Effect:
    """The effect in these HEADERS. What has another form than expected counts as missing."""
    level = headers.get("effect") or ""
    return Effect(
        level=level if level in _LEVELS else "",
        codes=_names(headers.get("degraded")),
        fixed=_names(headers.get("fixed")),
        samples=_share(headers.get("samples")),
        ratings=_ratings(headers.get("ratings")),
        agreement=_share(headers.get("agreement")),
        evidence=(headers.get("evidence") or "").strip(),
    )


def _names(text: str | None) -> tuple[str, ...]:
    """Words separated by commas, each once."""
    parts = (part.strip() for part in (text or "").split(","))
    return tuple(dict.fromkeys(part for part in parts if re.fullmatch("[a-z0-9_]+", part)))


def _share(text: str | None) -> Share | None:
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", (text or "").strip())
    return Share(int(match[1]), int(match[2])) if match else None


def _ratings(text: str | None) -> tuple[float | None, ...] | None:
    try:
        values = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or not all(map(_is_rating, values)):
        return None
    return tuple(values)


def _is_rating(value: object) -> bool:
    """Whether it is a number, or None for an unreadable rating. NaN and Infinity are no JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return -_LARGEST <= value <= _LARGEST
