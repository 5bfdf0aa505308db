"""Whether the guard's promises hold on a release: verified, conformant here, or refused.

One pure function decides it, for the check `release.verified`, `releases`, `status`, `upgrade` and
their JSON.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optictl.deployment import config_yaml
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.guard import fingerprints
from optictl.host import files, uv
from optictl.releases import integrity
from optictl.releases.release_record import Conformance, ReleaseRecord

#: `conformant`: with texts that no verified version has, a conformance run passed on this machine.
State = Literal["verified", "conformant", "refused", "unknown"]
_WORDS: dict[State, str] = {"conformant": "conformant here", "unknown": "not verified"}


@dataclass(frozen=True)
class Verification:
    """The verdict on a release, and the reason for it."""

    state: State
    reason: str

    @property
    def words(self) -> str:
        """The verdict for people."""
        return _WORDS.get(self.state, self.state)


def judge(unknown: Sequence[str] | None, conformance: Conformance | None) -> Verification:
    """The verdict on a release. Pure.

    `unknown`: the parts of its OptiLLM whose text no verified version has, None where they were
    not read. `conformance`: its conformance run, None where there was none.
    """
    if conformance is not None and not conformance.passed:
        return Verification("refused", f"the conformance run of {conformance.at} failed")
    if unknown is not None and not unknown:
        return Verification("verified", "the guard's tests passed with this OptiLLM")
    if conformance is not None:
        return Verification("conformant", f"the conformance run of {conformance.at} passed")
    if unknown is None:
        return Verification(
            "unknown", "its OptiLLM cannot be read, and no conformance run is on record"
        )
    return Verification("refused", f"the guard does not know {listed(unknown)}")


def listed(names: Sequence[str]) -> str:
    """The first names of several, for a sentence."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more parts of it" if len(names) > 3 else shown


def of(directory: Path, record: ReleaseRecord, strategies: Collection[str]) -> Verification:
    """The verdict on a stored release, with the enabled strategies."""
    unknown, conformance = _unknown_parts(directory, strategies), record.conformance
    if unknown and conformance is not None and conformance.passed:
        # an edited release has other texts than those that the run tried
        conformance = None if integrity.edited_files(directory) else conformance
    return judge(unknown, conformance)


def enabled(paths: Paths) -> Collection[str]:
    """The enabled strategies of a deployment; the defaults where its configuration is not valid."""
    with suppress(OSError, OptictlError):
        if (text := files.read(paths.config)) is not None:
            return config_yaml.parse(text, str(paths.config)).strategies
    return Config().strategies


def _unknown_parts(directory: Path, strategies: Collection[str]) -> list[str] | None:
    packages = uv.site_packages(directory / ".venv")
    if packages is None or not (packages / "optillm").is_dir():
        return None
    try:
        return fingerprints.unknown(packages, strategies)
    except (OSError, SyntaxError, ValueError):
        return None
