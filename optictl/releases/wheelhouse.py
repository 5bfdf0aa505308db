"""Wheelhouses: directories with the wheels of OptiLLM and of optictl, for one platform and Python.

A host without a package index installs from one. The controller of a fleet keeps one per platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optictl import __version__
from optictl.deployment import render
from optictl.errors import Locked, NoLock, NoWheel, OptictlError, of_exception
from optictl.host import files, program, wheels
from optictl.releases import locks
from optictl.releases.targets import Pin, Target, pins

Say = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """A file of a wheelhouse. `sha256`: in hex. `size`: bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Wheelhouse:
    """The files for a host of one platform, and the versions of OptiLLM that they install.

    `requirements`: the name of the requirements file of optictl. `program`: the identity of that
    optictl, its version and a digest.
    """

    target: str
    versions: list[str]
    directory: Path
    program: str
    requirements: str
    files: list[File]

    def as_dict(self) -> dict[str, Any]:
        """The wheelhouse as variables of the role."""
        fields = {**asdict(self), "version": self.versions[0], "directory": str(self.directory)}
        return {**fields, "files": [asdict(file) for file in self.files]}


@dataclass(frozen=True)
class Request:
    """What a wheelhouse must have: the closures of OptiLLM versions, and optictl with its own."""

    target: Target
    versions: tuple[str, ...]
    profile: str

    def own(self) -> list[Pin]:
        """The packages that optictl needs."""
        return pins((locks.shipped_locks() / "optictl.txt").read_text(), self.target)

    def all(self) -> list[Pin]:
        """Every package from an index. Raises NoLock for a version without a lock."""
        closures = [pins(_lock(v, self.profile), self.target) for v in self.versions]
        return list(dict.fromkeys(pin for part in [self.own(), *closures] for pin in part))


def make(directory: Path, request: Request, source: Path | None, say: Say) -> Wheelhouse:
    """Create or complete the wheelhouse in a directory. Wheels that exist are kept.

    `source`: a directory that replaces pip's index.

    Raises:
        OptictlError: a version has no lock, or a wheel cannot be downloaded.
        Locked: another process works on the same wheelhouse.
    """
    needed = request.all()
    files.make_directory(directory)
    try:
        with files.exclusive(directory / ".lock"):
            wheel_paths = complete(directory, request.target, needed, source, say)
            own = program.commit()
            wheel = wheels.pack_optictl(directory, render.template_directory(), own)
            text = _requirements(request, files.sha256(wheel))
            mark = hashlib.sha256(text.encode()).hexdigest()[:12]
            requirements = directory / f"optictl-{mark}.txt"
            files.write(requirements, text, 0o644)
    except Locked as holder:
        raise Locked(f"{holder} is filling {directory}", remedy="wait for it to end") from None
    everything = sorted({*wheel_paths, wheel, requirements})
    return Wheelhouse(
        request.target.name,
        list(request.versions),
        directory,
        f"{__version__}-{mark}",
        requirements.name,
        [File(path.name, files.sha256(path), path.stat().st_size) for path in everything],
    )


def missing(directory: Path, request: Request) -> list[Pin]:
    """The packages of which a directory has no wheel. Writes nothing."""
    have = wheels.digests(directory)
    return [pin for pin in request.all() if not pin.digests & have.keys()]


def _requirements(request: Request, digest: str) -> str:
    """The requirements file of optictl. `digest`: its wheel's SHA-256, in hex."""
    own = Pin("optictl", __version__, frozenset({digest}))
    return "".join(f"{pin.line}\n" for pin in [*request.own(), own])


def _lock(version: str, profile: str) -> str:
    path = locks.shipped_locks() / locks.lock_name(version, profile)
    if not path.is_file():
        raise NoLock(
            f"this optictl has no lock for OptiLLM {version} (profile {profile})",
            remedy=f"use one of {', '.join(locks.shipped_versions(profile))}",
        )
    return path.read_text()


def complete(
    directory: Path,
    target: Target,
    needed: Sequence[Pin],
    source: Path | None,
    say: Say,
) -> list[Path]:
    """The wheel of every pin. Downloads wheels that are missing or have another hash."""
    have = wheels.digests(directory)
    lacking = [pin for pin in needed if not pin.digests & have.keys()]
    if lacking:
        say(f"downloading {len(lacking)} of {len(needed)} wheels for {target.name}")
        _download(directory, target, lacking, source, say)
        have = wheels.digests(directory)
        if still := [pin.name for pin in needed if not pin.digests & have.keys()]:
            raise NoWheel(
                f"{directory} has no wheel with the hash in the lock: {', '.join(still)}",
                remedy=f"rm -r {directory}, then run it again",
            )
    return [have[min(pin.digests & have.keys())] for pin in needed]


def _download(
    directory: Path, target: Target, lacking: Sequence[Pin], source: Path | None, say: Say
) -> None:
    """Download the wheels of these pins."""
    # two locks may pin different versions of one package, which pip reports as a conflict
    python = ".".join(map(str, target.python))
    for batch in _batches(lacking):
        requirements = "".join(f"{pin.line}\n" for pin in batch)
        try:
            wheels.download(requirements, directory, python, target.platforms, source, say)
        except KeyboardInterrupt as stopped:
            raise of_exception(stopped).reworded(
                f"interrupted: {directory} does not have all wheels",
                "run the command again; pip's cache keeps what was downloaded",
            ) from None
        except OptictlError as error:
            raise error.reworded(
                f"cannot download the wheels for {target.name}: {error.what}",
                error.remedy
                or "check that pip reaches its index on this machine, or use --wheelhouse DIR",
            ) from None


def _batches(missing: Sequence[Pin]) -> list[list[Pin]]:
    """The pins in lists, none with two versions of one package. As few lists as possible."""
    batches: list[dict[str, Pin]] = []
    for pin in missing:
        free = next((batch for batch in batches if batch.get(pin.name, pin) == pin), None)
        if free is None:
            batches.append(free := {})
        free[pin.name] = pin
    return [list(batch.values()) for batch in batches]
