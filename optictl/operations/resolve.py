"""A hash lock for a version of OptiLLM that optictl ships none for: the operator's, or a new one
from the same pins.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import (
    FileFailure,
    InvalidFile,
    NoLock,
    OptictlError,
    ReleaseRefused,
    ToolError,
)
from optictl.guard import fingerprints
from optictl.host import files, uv
from optictl.releases import locks, versions
from optictl.releases.verification import listed
from optictl.results import Progress, Status


@dataclass(frozen=True)
class Resolution:
    """A new lock, what it changes in the closure, and what changed in OptiLLM that the guard relies
    on.

    `closure` has a line for each package: "openai 3.54.0 -> 3.60.1"; `internals` name -> diff;
    `unknown` are the parts that no verified version has: the conformance run after the build
    decides about them. `refused` is why the release is refused without a build, or "".
    """

    path: Path
    text: str
    closure: list[str]
    internals: dict[str, str]
    unknown: list[str]
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape; the lock itself is left out."""
        data = {
            "closure": self.closure,
            "internals": sorted(self.internals),
            "unknown": self.unknown,
            "refused": self.refused,
        }
        return {"id": self.path.name, "status": self.status, "data": data}

    @property
    def status(self) -> Status:
        """`warn`: it has texts that only a conformance run can judge."""
        if self.refused:
            return "fail"
        return "warn" if self.unknown else "pass"


def resolve(config: Config, paths: Paths, version: str, progress: Progress) -> Resolution:
    """Make a lock for a version of OptiLLM from the same pins. Only a scratch directory is written
    to.

    Raises:
        OptictlError: it cannot be resolved.
    """
    if config.optillm.profile != "proxy":
        raise NoLock(
            "only the profile proxy can be resolved",
            remedy=f"set optillm.profile to proxy in {paths.config}",
        )
    old = locks.lock_file(config.optillm.version, "proxy", paths).read_text()
    progress(f"resolving OptiLLM {version} and its closure")
    text = _resolved(config, paths, version, old)
    progress(f"reading what the guard relies on in OptiLLM {version}")
    parts = _internals(config.optillm.version, version, config.strategies)
    oldest = locks.shipped_versions("proxy")[0]
    return Resolution(
        paths.locks / locks.lock_name(version, "proxy"),
        text,
        closure_difference(old, text),
        parts.changed,
        parts.unknown,
        why_refused(version, oldest, parts.missing, parts.unknown),
    )


def refuse(found: Resolution, config: Config, paths: Paths, version: str) -> None:
    """Raise ReleaseRefused if the release that this lock leads to is refused without a build."""
    if not found.refused:
        return
    works = locks.recommended(paths, config.optillm.profile)
    instead = f"{paths.command(f'upgrade {works}')}, a version that works; or: " if works else ""
    raise ReleaseRefused(
        f"OptiLLM {version} is refused: {found.refused}; nothing was built and no lock was kept",
        f"{instead}{paths.command('upgrade --list')} shows the versions",
    )


def why_refused(version: str, oldest: str, missing: Sequence[str], unknown: Sequence[str]) -> str:
    """Why a release is refused before it is built, or "". Pure.

    What the guard calls must be there. An OptiLLM before `oldest`, the first that the guard was
    made for, must have texts that the guard knows; a newer one is tried by a conformance run.
    """
    if missing:
        return f"it has no {listed(missing)}, which the guard calls"
    if unknown and versions.is_older(version, oldest):
        return f"it is older than {oldest}, and the guard does not know {listed(unknown)}"
    return ""


def _resolved(config: Config, paths: Paths, version: str, old: str) -> str:
    """The text of the new lock, as close to the old one as may be."""
    shipped = locks.shipped_locks()
    pins, excluded = (shipped / "proxy.in").read_text(), (shipped / "proxy.exclude").read_text()
    try:
        return uv.resolve(f"optillm=={version}\n{pins}", excluded, old)
    except OptictlError as error:
        if isinstance(error, ToolError) and uv.is_missing_version(error):
            raise versions.no_such_version(
                version, _newest(), paths, config.optillm.profile
            ) from None
        remedy = error.remedy or "check the version's number: uv's output names what does not fit"
        raise error.reworded(
            f"OptiLLM {version} cannot be resolved: {error.what}", remedy
        ) from None


def _newest() -> str:
    """The newest version on the index, "" without an answer."""
    try:
        return uv.newest_version("optillm")
    except OptictlError:
        return ""


@dataclass(frozen=True)
class _Internals:
    """The parts of an OptiLLM that the guard calls: `changed` name -> diff, those that are
    `unknown`, and those that are `missing`.
    """

    changed: dict[str, str]
    unknown: list[str]
    missing: list[str]


def _internals(old_version: str, version: str, strategies: Collection[str]) -> _Internals:
    """Those of a version, beside those of an older one."""
    old_sources, new_sources = (
        uv.sources(f"optillm=={old_version}"),
        uv.sources(f"optillm=={version}"),
    )
    with old_sources as old_package, new_sources as new_package:
        old = fingerprints.sources(old_package, strategies)
        new = fingerprints.sources(new_package, strategies)
        changed = {
            name: _diff(old.get(name, ""), new.get(name, ""))
            for name in sorted({*old, *new})
            if fingerprints.fingerprint(old.get(name, ""))
            != fingerprints.fingerprint(new.get(name, ""))
        }
        unknown = fingerprints.unknown(new_package, strategies)
        return _Internals(changed, unknown, fingerprints.missing(new_package, strategies))


def _diff(old: str, new: str) -> str:
    lines = old.splitlines(keepends=True), new.splitlines(keepends=True)
    return "".join(difflib.unified_diff(*lines, "old", "new", n=1))


def closure_difference(old: str, new: str) -> list[str]:
    """The packages in which two locks differ, a line each. Pure."""
    before, after = _pins(old), _pins(new)
    return [
        _difference(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def _difference(name: str, old: str | None, new: str | None) -> str:
    if old and new:
        return f"{name} {old} -> {new}"
    return f"{name} {new} is new" if new else f"{name} {old} is gone"


def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.M))


def own_lock(config: Config, paths: Paths, version: str, lock: Path) -> tuple[Path, str]:
    """Where an operator's lock for this version belongs, and its text.

    Raises:
        OptictlError: it is no hash lock of that version.
    """
    try:
        text = files.read(lock) or ""
    except OSError as error:
        raise FileFailure(
            f"cannot read {lock}: {error.strerror}", remedy="name a file that can be read"
        ) from None
    if _pins(text).get("optillm") != version or "--hash=" not in text:
        raise InvalidFile(
            f"{lock} is no hash lock of OptiLLM {version}",
            remedy=f"make one: {paths.command(f'upgrade {version} --resolve')}",
        )
    return paths.locks / locks.lock_name(version, config.optillm.profile), text


@contextmanager
def unkept(name: str, text: str) -> Iterator[Path]:
    """A file with this lock, for as long as it is not proven: `KeepLock` keeps it afterwards.

    Its name is part of a release's identity.
    """
    with files.scratch() as directory:
        path = directory / name
        files.write(path, text, 0o644)
        yield path
