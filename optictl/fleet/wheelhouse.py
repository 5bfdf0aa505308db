"""Wheelhouses on the controller, one per platform: the wheels of OptiLLM and of optictl."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optictl import __version__
from optictl.deployment import render
from optictl.errors import Locked, NoLock, NoWheel, OptictlError
from optictl.fleet.targets import Pin, Target, pins
from optictl.host import files, wheels
from optictl.releases import locks


@dataclass(frozen=True)
class File:
    """A file of a wheelhouse. `sha256`: in hex. `size`: bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Wheelhouse:
    """The files for a host of one platform and one version of OptiLLM.

    `requirements`: the name of the requirements file of optictl. `program`: the identity of that
    optictl, its version and a digest.
    """

    target: str
    version: str
    directory: Path
    program: str
    requirements: str
    files: list[File]

    def as_dict(self) -> dict[str, Any]:
        """The wheelhouse as variables of the role."""
        fields = {**asdict(self), "directory": str(self.directory)}
        return {**fields, "files": [asdict(file) for file in self.files]}


def make(
    target: Target, version: str, profile: str, source: Path | None, say: Callable[[str], None]
) -> Wheelhouse:
    """Create or complete the wheelhouse of a target, with the closure of one version of OptiLLM.

    Wheels that exist are kept. `source`: a directory that replaces pip's index.

    Raises:
        OptictlError: the version has no lock, or a wheel cannot be downloaded.
        Locked: another process works on the same wheelhouse.
    """
    directory = wheels.cache() / target.name
    files.make_directory(directory)
    own = pins((locks.shipped_locks() / "optictl.txt").read_text(), target)
    needed = [*own, *pins(_lock(version, profile), target)]
    try:
        with files.exclusive(directory / ".lock"):
            wheel_paths = _complete(directory, target, needed, source, say)
            wheel = wheels.pack_optictl(directory, render.template_directory())
            digest = files.sha256(wheel)
            text = "".join(
                f"{pin.line}\n" for pin in [*own, Pin("optictl", __version__, frozenset({digest}))]
            )
            mark = hashlib.sha256(text.encode()).hexdigest()[:12]
            requirements = directory / f"optictl-{mark}.txt"
            files.write(requirements, text, 0o644)
    except Locked as holder:
        raise Locked(f"{holder} is filling {directory}", remedy="wait for it to end") from None
    everything = sorted({*wheel_paths, wheel, requirements})
    return Wheelhouse(
        target.name,
        version,
        directory,
        f"{__version__}-{mark}",
        requirements.name,
        [File(path.name, files.sha256(path), path.stat().st_size) for path in everything],
    )


def _lock(version: str, profile: str) -> str:
    path = locks.shipped_locks() / locks.lock_name(version, profile)
    if not path.is_file():
        raise NoLock(
            f"this optictl has no lock for OptiLLM {version} (profile {profile})",
            remedy=f"use one of {', '.join(locks.shipped_versions(profile))}",
        )
    return path.read_text()


def _complete(
    directory: Path,
    target: Target,
    needed: Sequence[Pin],
    source: Path | None,
    say: Callable[[str], None],
) -> list[Path]:
    """The wheel of every pin. Downloads wheels that are missing or have another hash."""
    have = wheels.digests(directory)
    missing = [pin for pin in needed if not pin.digests & have.keys()]
    if missing:
        say(f"downloading {len(missing)} wheels for {target.name}")
        # two locks may pin different versions of one package, which pip reports as a conflict
        for batch in _batches(missing):
            requirements = "".join(f"{pin.line}\n" for pin in batch)
            try:
                wheels.download(
                    requirements,
                    directory,
                    ".".join(map(str, target.python)),
                    target.platforms,
                    source,
                )
            except OptictlError as error:
                remedy = (
                    error.remedy
                    or "check that pip reaches its index on this machine, or use --wheelhouse DIR"
                )
                what = f"cannot download the wheels for {target.name}: {error.what}"
                raise error.reworded(what, remedy) from None
        have = wheels.digests(directory)
        if still := [pin.name for pin in needed if not pin.digests & have.keys()]:
            raise NoWheel(
                f"{directory} has no wheel with the hash in the lock: {', '.join(still)}",
                remedy=f"rm -r {directory}, then run it again",
            )
    return [have[min(pin.digests & have.keys())] for pin in needed]


def _batches(missing: Sequence[Pin]) -> list[list[Pin]]:
    """The pins in lists, none with two versions of one package. As few lists as possible."""
    batches: list[dict[str, Pin]] = []
    for pin in missing:
        free = next((batch for batch in batches if batch.get(pin.name, pin) == pin), None)
        if free is None:
            batches.append(free := {})
        free[pin.name] = pin
    return [list(batch.values()) for batch in batches]
